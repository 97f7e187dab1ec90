//! A connection on which events are sent as they come, for as long as somebody reads.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::broadcast::error::RecvError,
    time::timeout,
};

use super::{
    protocol::answer,
    server::{Shared, to_value, with},
};
use crate::{
    failure::{FAILED, Failure},
    report::events::Event,
};

/// A follower that does not take what it is sent for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers with the events that were kept, then with each that comes: until the follower leaves, or the probe
/// is unloaded.
pub async fn follow(mut stream: UnixStream, session: &Shared) {
    let subscribed = with(session, |session| session.probes_mut().follow_events());
    let (kept, mut events) = match subscribed {
        Ok(subscribed) => subscribed,
        Err(failure) => {
            send(&mut stream, Err(failure)).await;
            return;
        }
    };
    if !send(&mut stream, to_value(&kept)).await {
        return;
    }
    let mut unread = [0; 64];
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // Nothing more is expected from a follower but its end.
            read = stream.read(&mut unread) => match read {
                Ok(count) if count > 0 => continue,
                _ => return,
            },
        };
        let going_on = match event {
            Ok(event) => send(&mut stream, to_value(&event)).await,
            Err(RecvError::Lagged(count)) => {
                send(&mut stream, to_value(&Event::Lost { count })).await
            }
            Err(RecvError::Closed) => {
                let ended = Failure::new(FAILED, "the probe memory was unloaded");
                send(&mut stream, Err(ended.hint("iolag probe load memory"))).await;
                false
            }
        };
        if !going_on {
            return;
        }
    }
}

/// `false` if nobody takes it.
async fn send(stream: &mut UnixStream, result: Result<Value, Failure>) -> bool {
    let line = format!("{}\n", answer(result));
    matches!(
        timeout(PATIENCE, stream.write_all(line.as_bytes())).await,
        Ok(Ok(()))
    )
}
