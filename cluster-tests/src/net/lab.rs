//! Machines on one switch, and the observer: the thread that made them.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use super::namespace::Namespace;
use super::namespace::move_here;
use super::process::Process;
use super::switch::Switch;
use super::tap;
use super::tap::Neighbour;

/// Everybody's hardware address; the last byte is the number.
pub(super) const HARDWARE: [u8; 6] = [0x02, 0x53, 0x4d, 0x47, 0, 0];
/// More than any test needs; the observer's address lies beyond.
const MACHINES_MAX: usize = 64;

/// Machines and the network between them.
#[derive(Debug)]
pub struct Lab {
    /// What happens on the way.
    pub switch: Switch,
    machines: Vec<Machine>,
}

/// One machine: a network of its own.
#[derive(Debug)]
pub struct Machine {
    /// Its address.
    pub ip: Ipv4Addr,
    namespace: Namespace,
}

/// Whether this machine lets us: a network of our own, a TAP device, the `ip` command. Leaves the calling thread where it is.
pub fn is_possible() -> Result<(), String> {
    let tried = std::thread::spawn(|| Lab::new(1, 0).map(drop));
    match tried.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("it needs root, /dev/net/tun and the `ip` command: {error}")),
        Err(_) => Err("the switch cannot be made".to_owned()),
    }
}

impl Lab {
    /// Makes machines and moves the calling thread to the observer's place. The seed decides which frames are hurt.
    ///
    /// # Panics
    /// When it is asked for more than 64 machines.
    pub fn new(machines: usize, seed: u64) -> io::Result<Self> {
        assert!(machines <= MACHINES_MAX, "addresses and hardware addresses are made for {MACHINES_MAX}");
        let everybody: Vec<Neighbour> = (0..=machines).map(|it| neighbour(it, machines)).collect();
        let mut taps = Vec::new();
        let mut made = Vec::new();
        for at in 0..machines {
            let (namespace, others) = (Namespace::new()?, everybody.clone());
            taps.push(namespace.run(move || plug_in(at, &others))?);
            made.push(Machine { ip: everybody[at].0, namespace });
        }
        move_here()?;
        taps.push(plug_in(machines, &everybody)?);
        Ok(Self { switch: Switch::start(taps, seed)?, machines: made })
    }

    /// One of the machines.
    #[must_use]
    pub fn machine(&self, at: usize) -> &Machine {
        &self.machines[at]
    }

    /// Starts a process at the observer's place. It dies with the calling thread.
    pub fn start(&self, command: Command, log: &Path) -> io::Result<Process> {
        Process::start(command, log)
    }

    /// The observer's address, where workers can listen that every machine reaches.
    #[must_use]
    pub fn observer(&self) -> Ipv4Addr {
        neighbour(self.machines.len(), self.machines.len()).0
    }
}

fn neighbour(at: usize, machines: usize) -> Neighbour {
    let number = u8::try_from(at).expect("at most 64");
    let last = if at == machines { 254 } else { number + 1 };
    let mut hardware = HARDWARE;
    hardware[5] = number;
    (Ipv4Addr::new(10, 66, 0, last), hardware)
}

fn plug_in(at: usize, everybody: &[Neighbour]) -> io::Result<std::fs::File> {
    let file = tap::open()?;
    let others: Vec<_> = everybody.iter().enumerate().filter(|it| it.0 != at).map(|it| *it.1).collect();
    tap::configure(everybody[at], &others)?;
    Ok(file)
}

impl Machine {
    /// Starts a process on it, which writes to a file.
    pub fn start(&self, command: Command, log: &Path) -> io::Result<Process> {
        let log = log.to_owned();
        self.namespace.run(move || Process::start(command, &log))
    }

    /// Connects from it, to its own loopback for example.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.namespace.run(move || TcpStream::connect(to))
    }

    /// A UDP socket on its address.
    pub fn bind(&self, port: u16) -> io::Result<UdpSocket> {
        let ip = self.ip;
        self.namespace.run(move || UdpSocket::bind((ip, port)))
    }
}
