//! `linux.netDevices`: network devices of the host that move into the container.
//!
//! The device is moved (and renamed) in one step, loses its addresses by that, and gets those that were
//! global and permanent again on the other side, where it is set up.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};

use super::netlink::{
    IFF_UP, IFLA_IFNAME, IFLA_NET_NS_FD, NLM_F_ACK, RTM_NEWADDR, RTM_NEWLINK, Socket, attribute,
    ifinfo, socket_in, terminated,
};

/// Moves the devices; `devices` has the host's names and the names inside.
pub fn move_all(devices: &BTreeMap<String, String>, netns: BorrowedFd<'_>) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let (here, there) = (Socket::new()?, socket_in(netns)?);
    for (name, inside) in devices {
        move_one(&here, &there, name, inside, netns)
            .with_context(|| format!("move the network device {name} (linux.netDevices)"))?;
    }
    Ok(())
}

fn move_one(
    here: &Socket,
    there: &Socket,
    name: &str,
    inside: &str,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let index = here.index_of(name).context("find it")?;
    let addresses = here.addresses_of(index).context("read its addresses")?;
    let mut body = ifinfo(index, 0);
    attribute(&mut body, IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    attribute(&mut body, IFLA_IFNAME, &terminated(inside));
    here.ask(RTM_NEWLINK, NLM_F_ACK, &body)?;
    // Its number may be another one there.
    let index = there.index_of(inside).context("find it in the container")?;
    for mut address in addresses {
        address[4..8].copy_from_slice(&index.to_ne_bytes());
        there.ask(RTM_NEWADDR, NLM_F_ACK, &address).context("give it its addresses again")?;
    }
    there.ask(RTM_NEWLINK, NLM_F_ACK, &ifinfo(index, IFF_UP)).context("set it up")?;
    Ok(())
}
