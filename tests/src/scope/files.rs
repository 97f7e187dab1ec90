//! What is done to which file: devices, operations, sizes.

use std::path::Path;

use anyhow::Result;

use super::{Pair, Stage, calls, tasks::USER, worker::Work};

/// The work of a user whom only this test has, so that nobody else's is counted.
fn ours(call: impl FnMut(u32) -> bool + 'static) -> Work {
    Work::new(call).set_up(|_| calls::become_user(USER, USER))
}

/// Files of a disk's file system, by the disk's name and by the device's number, at each point that has a file.
pub fn device(stage: &Stage) -> Result<()> {
    let Some((name, number)) = stage.disk()? else {
        println!("skipped: {} is not on a block device", stage.disk.display());
        return Ok(());
    };
    let on_disk = stage.file(&stage.disk, "device")?;
    let in_memory = stage.file(&stage.memory, "device")?;
    let user = USER.to_string();
    let each = |device: &str, point: &str, work: &dyn Fn(&Path) -> Result<Work>| -> Result<()> {
        let filters = ["--device", device, "--uid", user.as_str()];
        Pair::start(work(&on_disk)?, work(&in_memory)?)?.differ(stage, point, &filters)
    };
    let read = |file: &Path| Ok(ours(calls::read(file, &[100])?));
    each(&name, "vfs.read", &read)?;
    each(&number, "vfs.read", &read)?;
    each(&name, "vfs.write", &|file| {
        Ok(ours(calls::write(file, &[100])?))
    })?;
    each(&name, "vfs.fsync", &|file| Ok(ours(calls::sync(file)?)))?;
    // Which is vfs.opened then.
    each(&name, "vfs.open", &|file| Ok(ours(calls::opening(file)?)))
}

pub fn op(stage: &Stage) -> Result<()> {
    let [written, read] = [
        stage.file(&stage.memory, "written")?,
        stage.file(&stage.memory, "read")?,
    ];
    let user = USER.to_string();
    let start = || -> Result<[Work; 2]> {
        Ok([
            ours(calls::write(&written, &[100])?),
            ours(calls::read(&read, &[100])?),
        ])
    };
    let [writes, reads] = start()?;
    let filters = ["--op", "write", "--uid", user.as_str()];
    Pair::start(writes, reads)?.differ(stage, "vfs.read,vfs.write", &filters)?;
    let [writes, reads] = start()?;
    let filters = ["--op", "read", "--uid", user.as_str()];
    Pair::start(reads, writes)?.differ(stage, "vfs.read,vfs.write,vfs.fsync", &filters)
}

/// What a 32-bit program does is not taken for what 64-bit programs call by the same number: `break` is not `pread64`,
/// `oldstat` is not `pwrite64`, `readlink` is not `creat`.
pub fn of_32_bits(stage: &Stage) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        println!("skipped: 32-bit calls have numbers of their own on x86 only");
        return Ok(());
    }
    let file = stage.file(&stage.memory, "of-64-bits")?;
    let user = USER.to_string();
    let calls: [(&str, u32, Work); 3] = [
        ("vfs.read", 17, ours(calls::read(&file, &[100])?)),
        ("vfs.write", 18, ours(calls::write(&file, &[100])?)),
        ("vfs.open", 85, ours(calls::opening(&file)?)),
    ];
    for (point, number, work) in calls {
        Pair::start(work, ours(calls::of_32_bits(number)))?.differ(
            stage,
            point,
            &["--uid", &user],
        )?;
    }
    Ok(())
}

/// Both ends of a range are in it, and what is asked for counts.
pub fn size(stage: &Stage) -> Result<()> {
    let [file, other] = [
        stage.file(&stage.memory, "size-1")?,
        stage.file(&stage.memory, "size-2")?,
    ];
    let user = USER.to_string();
    let inside: &[usize] = &[4096, 5000, 8191, 8192];
    let outside: &[usize] = &[4095, 8193, 1, 65536];
    let filters = ["--size", "4k..8k", "--uid", user.as_str()];
    for point in ["vfs.read", "vfs.write"] {
        let work = |file: &Path, sizes| -> Result<Work> {
            Ok(match point {
                "vfs.read" => ours(calls::read(file, sizes)?),
                _ => ours(calls::write(file, sizes)?),
            })
        };
        Pair::start(work(&file, inside)?, work(&other, outside)?)?
            .differ(stage, point, &filters)?;
    }
    let above = ["--size", "8193..", "--uid", user.as_str()];
    Pair::start(
        ours(calls::read(&file, &[8193, 65536])?),
        ours(calls::read(&other, inside)?),
    )?
    .differ(stage, "vfs.read", &above)
}

/// Each call is one hit, whichever functions it passes.
pub fn fsync(stage: &Stage) -> Result<()> {
    for (dir, filter) in [(&stage.disk, &[][..]), (&stage.memory, &["--op", "flush"])] {
        let [first, second] = [stage.file(dir, "sync-1")?, stage.file(dir, "sync-2")?];
        let mut pair = Pair::start(
            Work::new(calls::sync(&first)?),
            Work::new(calls::sync(&second)?),
        )?;
        let pid = pair.first.pid().to_string();
        pair.differ(stage, "vfs.fsync", &[&["--pid", &pid], filter].concat())?;
    }
    Ok(())
}
