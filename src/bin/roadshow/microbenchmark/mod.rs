//! `roadshow microbenchmark`: every figure beside its limit, in one run.

mod calls;
mod echo;
mod lab;
mod measure;
mod subject;

use std::time::Duration;

use lab::{Lab, Outcome, Pin};

/// Measures calls, messages, payloads, spawns and tasks, each beside its limit on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Only figures whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    filter: String,
    /// How long to measure each side of a figure, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Which cores the driver and the worker may run on.
    #[arg(long, value_enum, default_value_t = Pin::None)]
    pin: Pin,
}

pub(crate) async fn run(arguments: &Arguments) -> Outcome<()> {
    let time = Duration::from_secs_f64(arguments.seconds);
    let lab = Lab::open(arguments.pin).await?;
    let f = &arguments.filter;
    for _ in 0..2 {
        if "rtt".contains(f.as_str()) {
            println!(
                "rtt {:?} raw {:?}",
                calls::round_trip(&lab, time).await?,
                echo::round_trip(lab.echo, time).await?
            );
        }
        for n in [64, 1024] {
            if n.to_string().contains(f.as_str()) {
                let before = lab.cpu_seconds().await?;
                let ours = calls::rate(&lab.subject, n, time).await?;
                let after = lab.cpu_seconds().await?;
                let per = |a: f64, b: f64| (b - a) * 1e6 / (ours * arguments.seconds);
                let only = std::env::var_os("MB_ONLY").is_some();
                let raw = if only { 1.0 } else { echo::rate(lab.echo, n, 24, time).await? };
                let local = if only { 1.0 } else { calls::local_rate(&lab.local, n, time).await? };
                println!(
                    "{n}: {ours:.0} raw {raw:.0} ({:.3}) local {local:.0}; cpu {:.3} {:.3}",
                    ours / raw,
                    per(before.0, after.0),
                    per(before.1, after.1)
                );
            }
        }
        if "tell".contains(f.as_str()) {
            println!("tell {:.0}", calls::one_way(&lab.subject, time).await?);
        }
    }
    lab.close().await
}
