//! rtnetlink(7): requests to the kernel about network devices, in the network namespace of a socket.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sysbox_kernel::ns::{LinkNameSpaceType, move_into_link_name_space};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
/// An answer is wanted.
pub const NLM_F_ACK: u16 = 4;
/// All of them.
pub const NLM_F_DUMP: u16 = 0x300;
/// What is not there is made.
pub const NLM_F_CREATE: u16 = 0x400;
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_GETADDR: u16 = 22;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_NET_NS_FD: u16 = 28;
/// The device is set up.
pub const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u8 = 0x80;
/// Length of `struct nlmsghdr`, `struct ifinfomsg` and `struct ifaddrmsg`.
const HEADER: usize = 16;
pub const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;

/// A socket in a network namespace.
pub fn socket_in(netns: BorrowedFd<'_>) -> Result<Socket> {
    let network = Some(LinkNameSpaceType::Network);
    let own = File::open("/proc/self/ns/net").context("open /proc/self/ns/net")?;
    move_into_link_name_space(netns, network).context("enter the network namespace")?;
    let socket = Socket::new();
    move_into_link_name_space(own.as_fd(), network).context("leave the network namespace")?;
    socket
}

/// An rtnetlink socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    pub fn new() -> Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // Protocol 0 is NETLINK_ROUTE.
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
            .map(Self)
            .context("make an rtnetlink socket")
    }

    /// Sends a request; returns the bodies of what comes back, without headers.
    pub fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(u32::try_from(HEADER + body.len())?.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        rustix::net::send(&self.0, &message, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (received, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..received];
            while rest.len() >= HEADER {
                let length = u32::from_ne_bytes(rest[..4].try_into()?) as usize;
                let kind = u16::from_ne_bytes(rest[4..6].try_into()?);
                ensure!((HEADER..=rest.len()).contains(&length), "a broken message of the kernel");
                let body = &rest[HEADER..length];
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let code = i32::from_ne_bytes(body[..4].try_into()?);
                        if code == 0 {
                            return Ok(answers);
                        }
                        return Err(std::io::Error::from_raw_os_error(-code).into());
                    }
                    _ => answers.push(body.to_vec()),
                }
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
    }

    /// The number of the device of this name.
    pub fn index_of(&self, name: &str) -> Result<u32> {
        let wanted = terminated(name);
        for link in self.ask(RTM_GETLINK, NLM_F_DUMP, &ifinfo(0, 0))? {
            let index = link.get(4..8).context("a link without a number")?.try_into()?;
            let attributes = link.get(IFINFOMSG..).unwrap_or_default();
            if attributes_of(attributes).any(|(kind, value)| kind == IFLA_IFNAME && value == wanted)
            {
                return Ok(u32::from_ne_bytes(index));
            }
        }
        bail!("there is no network device {name:?}")
    }

    /// Its global and permanent addresses, as bodies for RTM_NEWADDR.
    pub fn addresses_of(&self, index: u32) -> Result<Vec<Vec<u8>>> {
        let mut all = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; IFADDRMSG])?;
        all.retain(|address| {
            // Family, prefix, flags, scope, and the device's number.
            address.len() >= IFADDRMSG
                && address[2] & IFA_F_PERMANENT != 0
                && address[3] < 253
                && address[4..8] == index.to_ne_bytes()
        });
        Ok(all)
    }
}

/// A `struct ifinfomsg` of the device with this number, whose flags `set` are to be set.
pub fn ifinfo(index: u32, set: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for number in [index, set, set] {
        body.extend(number.to_ne_bytes());
    }
    body
}

/// Text as the kernel wants it.
pub fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Appends a `struct rtattr`.
pub fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Kinds and values of `struct rtattr`s.
pub fn attributes_of(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let number = |at: usize| Some(u16::from_ne_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(number(0)?), number(2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_written() {
        let mut body = Vec::new();
        attribute(&mut body, IFLA_IFNAME, b"eth0\0");
        attribute(&mut body, IFLA_NET_NS_FD, &7_i32.to_ne_bytes());
        assert_eq!(body.len(), 20);
        let read: Vec<_> = attributes_of(&body).collect();
        assert_eq!(read[0], (IFLA_IFNAME, &b"eth0\0"[..]));
        assert_eq!(read[1], (IFLA_NET_NS_FD, &7_i32.to_ne_bytes()[..]));
        assert_eq!(attributes_of(&[9, 0, 3, 0, 1]).count(), 0, "cut off");
    }

    #[test]
    fn devices_have_numbers() {
        let socket = Socket::new().unwrap();
        assert!(socket.index_of("lo").unwrap() > 0);
        assert!(socket.index_of("none-such").is_err());
    }
}
