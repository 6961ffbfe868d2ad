//! A network card whose cable ends in this process.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::process::Stdio;

use rustix::fs::OFlags;
use rustix::ioctl;

const DEVICE: &str = "/dev/net/tun";
/// `IFF_TAP | IFF_NO_PI`: whole Ethernet frames, nothing before them.
const FLAGS: i16 = 0x0002 | 0x1000;
/// `TUNSETIFF`.
const SET_INTERFACE: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 202);

/// The kernel's `struct ifreq`, with flags in its union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes `eth0` in the calling thread's network. It goes when the file is closed.
#[expect(unsafe_code, reason = "the kernel makes a TAP device by ioctl only")]
pub(super) fn open() -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of open(2)");
    let file = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(DEVICE)?;
    let mut request = InterfaceRequest { name: [0; 16], flags: FLAGS, rest: [0; 22] };
    request.name[..4].copy_from_slice(b"eth0");
    // SAFETY: TUNSETIFF reads one `struct ifreq` of 40 bytes, which `InterfaceRequest` is laid out as (checked below), and keeps no pointer to it.
    unsafe { ioctl::ioctl(&file, ioctl::Setter::<SET_INTERFACE, InterfaceRequest>::new(request)) }?;
    Ok(file)
}

const _: () = assert!(std::mem::size_of::<InterfaceRequest>() == 40);

/// Who has which hardware address.
pub(super) type Neighbour = (Ipv4Addr, [u8; 6]);

/// Gives the calling thread's `eth0` its address, and tells it everybody else's.
pub(super) fn configure(me: Neighbour, others: &[Neighbour]) -> io::Result<()> {
    let mut orders = format!(
        "link set lo up\nlink set eth0 address {}\nlink set eth0 up\naddress add {}/24 dev eth0\nroute add default dev eth0\n",
        text(me.1),
        me.0
    );
    for (ip, hardware) in others {
        orders += &format!("neigh add {ip} lladdr {} dev eth0 nud permanent\n", text(*hardware));
    }
    let mut ip = Command::new("ip");
    let mut ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    ip.stdin.take().expect("piped").write_all(orders.as_bytes())?;
    let ended = ip.wait_with_output()?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&ended.stderr).into_owned())),
    }
}

fn text(hardware: [u8; 6]) -> String {
    hardware.map(|it| format!("{it:02x}")).join(":")
}
