#[derive(clap::Args)]
pub struct Args {}
pub fn command(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
