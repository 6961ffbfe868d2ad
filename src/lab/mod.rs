//! Simulated workers and a whole lab on one machine.
//!
//! A test has a worker in three lines (inside a tokio runtime; the port is free, the worker ends with the runtime):
//!
//! ```
//! # tokio::runtime::Runtime::new().expect("runtime").block_on(async {
//! use smg::lab::sim_worker::{Options, SimWorker};
//! let tasks = smg::base::tasks::Tasks::new();
//! let worker = SimWorker::start(Options { seed: 7, ..Options::default() }, &tasks).expect("starts");
//! worker.fault("cut after=2 how=reset next=1").expect("a rule");
//! assert!(worker.url().starts_with("http://127.0.0.1:"));
//! # });
//! ```
//!
//! `Options::default()` is vLLM without delays and with a prefix cache; `Options::like_a_gpu()` keeps time;
//! `Options::fastest()` is for measuring. What a worker saw is told by `snapshot()` and `requests()`, from outside the
//! process by `/sim/state` and `/sim/requests`. `cluster` is what `smg lab` runs: gateways and simulated workers as processes.

pub mod cluster;
pub mod engine;
pub mod process;
pub mod sim_worker;

use std::net::SocketAddr;

use self::sim_worker::Options;
use self::sim_worker::SimWorker;
use self::sim_worker::StartError;
use crate::base::tasks::Tasks;

/// Several simulated workers in one process.
pub struct Lab {
    workers: Vec<SimWorker>,
}

impl Lab {
    /// Starts `count` workers alike but for their seeds: on `options.port`, the next, and so on, or on free ports when
    /// that is 0. If one cannot start, those before it are stopped.
    pub fn start(count: usize, options: &Options, tasks: &Tasks) -> Result<Self, StartError> {
        let mut lab = Self { workers: Vec::with_capacity(count) };
        for index in 0..count {
            let own = Options { seed: options.seed.wrapping_add(index as u64), ..options.clone() };
            match lab.start_one(index, own, tasks) {
                Ok(worker) => lab.workers.push(worker),
                Err(error) => {
                    lab.stop();
                    return Err(error);
                }
            }
        }
        Ok(lab)
    }

    fn start_one(&self, index: usize, options: Options, tasks: &Tasks) -> Result<SimWorker, StartError> {
        let port =
            if options.port == 0 { 0 } else { options.port.saturating_add(index.try_into().unwrap_or(u16::MAX)) };
        let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let host = options.host.parse().map_err(invalid);
        let host = host.map_err(|cause| StartError::Listen { address: options.host.clone(), cause })?;
        SimWorker::start_at(SocketAddr::new(host, port), options, tasks)
    }

    /// The workers, in the order of their ports.
    #[must_use]
    pub fn workers(&self) -> &[SimWorker] {
        &self.workers
    }

    /// The base URLs of the workers.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.workers.iter().map(SimWorker::url).collect()
    }

    /// Stops all workers at once.
    pub fn stop(&self) {
        self.workers.iter().for_each(SimWorker::stop);
    }
}
