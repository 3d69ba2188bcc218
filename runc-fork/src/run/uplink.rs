//! A network that the engine has made before the container: behind the container's own.
//!
//! Podman and containerd's CRI make a network namespace on the host, set it up, and give it by its
//! path. It belongs to the host's user namespace for ever, so root inside could change nothing in it: no
//! inner engine, no VPN. So the container gets a namespace of its own, and each device of the engine's one
//! a twin in there, with its name, MAC, addresses and routes. The twin's other end stays in the engine's
//! namespace, where two rules of tc(8) pass on each packet, from the device to the twin and back. The
//! engine's device stays what it was, so the engine can count its packets and take it down as ever; with
//! the container's namespace the twins are gone.
//!
//! The twins are made before init is born: where the kernel can't do it, the container joins the engine's
//! namespace after all.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_spec::runtime as oci;

use super::netlink::{
    IFF_UP, IFINFOMSG, IFLA_IFNAME, IFLA_NET_NS_FD, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP,
    RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, Socket, attribute, attributes_of, ifinfo, socket_in,
    terminated,
};
use super::tc;
use crate::log;
use crate::prepare::Prepared;
use crate::spec::Engine;

const RTM_DELLINK: u16 = 17;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const ARPHRD_ETHER: u16 = 1;
const IFF_LOOPBACK: u32 = 8;
/// Nobody else can have the address: the engine gave it.
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// Times of a route's use.
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_KERNEL: u8 = 2;
const RTN_UNICAST: u8 = 1;
const RTMSG: usize = 12;

/// The engine's namespace, if this container is to be behind it instead of in it.
///
/// That is one that the engine has made for this container alone. A namespace in /proc belongs to somebody
/// else, and so may one that the user has named.
fn of(prepared: &Prepared, joins_user_namespace: bool) -> Option<PathBuf> {
    let spec = &prepared.bundle.spec;
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    let network = namespaces.iter().find(|n| n.typ() == oci::LinuxNamespaceType::Network)?;
    let path = network.path().as_ref()?;
    let wanted = prepared.options.system_container && !prepared.options.join_network;
    (wanted && !joins_user_namespace && made_by(prepared.hints.engine, path)).then(|| path.clone())
}

fn made_by(engine: Engine, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = match engine {
        Engine::Podman => "netns-",
        Engine::Containerd => "cni-",
        // CRI-O gives the same path to all containers of a pod: each would be alone in its own network, and
        // take the twins of the one before.
        _ => return false,
    };
    path.parent().is_some_and(|parent| parent.ends_with("run/netns")) && name.starts_with(prefix)
}

/// The engine's network, if the container is to be behind it; its spec then has a network of its own.
pub fn prepare(
    prepared: &Prepared,
    converted: &mut oci::Spec,
    joins_user_namespace: bool,
) -> Result<Option<Uplink>> {
    let Some(path) = of(prepared, joins_user_namespace) else { return Ok(None) };
    let namespace = File::open(&path)
        .with_context(|| format!("open the network namespace {}", path.display()))?;
    let uplink = match Uplink::prepare(namespace.as_fd()) {
        Ok(uplink) => uplink,
        Err(e) => {
            log::warn(&format!(
                "the container is in the network namespace {} itself, where its root can change nothing: {e:#}",
                path.display()
            ));
            return Ok(None);
        }
    };
    let namespaces = converted.linux_mut().as_mut().and_then(|l| l.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten() {
        if namespace.typ() == oci::LinuxNamespaceType::Network {
            namespace.set_path(None);
        }
    }
    Ok(Some(uplink))
}

/// Devices of the engine's namespace with their twins, until these are in the container.
#[derive(Debug)]
pub struct Uplink {
    there: Socket,
    devices: Vec<Device>,
    routes: Vec<Vec<u8>>,
}

#[derive(Debug, PartialEq)]
struct Device {
    index: u32,
    name: String,
    mac: Vec<u8>,
    mtu: Vec<u8>,
    /// As bodies for RTM_NEWADDR.
    addresses: Vec<Vec<u8>>,
    /// Number of the twin, once there is one.
    twin: Option<u32>,
}

impl Uplink {
    /// Makes the twins in the engine's namespace.
    pub fn prepare(namespace: BorrowedFd<'_>) -> Result<Self> {
        let there = socket_in(namespace)?;
        let links = there.ask(RTM_GETLINK, NLM_F_DUMP, &ifinfo(0, 0)).context("list devices")?;
        let mut devices = Vec::new();
        for link in links {
            if let Some(mut device) = Device::of(&link)? {
                device.addresses = there.addresses_of(device.index)?;
                devices.push(device);
            }
        }
        let routes = there.ask(RTM_GETROUTE, NLM_F_DUMP, &[0; RTMSG]).context("list routes")?;
        let mut uplink = Self { there, devices, routes };
        for device in &mut uplink.devices {
            device
                .make_twin(&uplink.there)
                .with_context(|| format!("make a twin of the network device {}", device.name))?;
        }
        Ok(uplink)
    }

    /// Moves the twins into the container's namespace.
    pub fn connect(mut self, container: BorrowedFd<'_>) -> Result<()> {
        let inside = socket_in(container)?;
        inside.ask(RTM_NEWLINK, NLM_F_ACK, &ifinfo(inside.index_of("lo")?, IFF_UP))?;
        let mut numbers = Vec::new();
        for device in &mut self.devices {
            let number = device
                .move_twin(&self.there, &inside, container)
                .with_context(|| format!("move the twin of {} into the container", device.name))?;
            numbers.push((device.index, number));
        }
        // What is reached without a gateway first.
        let routes = self.routes.iter().filter_map(|route| for_twin(route, &numbers));
        let mut routes: Vec<_> = routes.collect();
        routes.sort_by_key(|(gateway, _)| *gateway);
        for (_, route) in routes {
            inside
                .ask(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE, &route)
                .context("set up the engine's routes in the container")?;
        }
        Ok(())
    }
}

impl Drop for Uplink {
    /// Twins that have not been moved.
    fn drop(&mut self) {
        for device in &self.devices {
            if let Some(twin) = device.twin {
                let _ = self.there.ask(RTM_DELLINK, NLM_F_ACK, &ifinfo(twin, 0));
                let _ = tc::clear(&self.there, device.index);
            }
        }
    }
}

impl Device {
    /// The device of a `RTM_NEWLINK`, if it is one to be twinned.
    fn of(link: &[u8]) -> Result<Option<Self>> {
        ensure!(link.len() >= IFINFOMSG, "a broken message of the kernel");
        let kind = u16::from_ne_bytes(link[2..4].try_into()?);
        let flags = u32::from_ne_bytes(link[8..12].try_into()?);
        if flags & IFF_LOOPBACK != 0 || flags & IFF_UP == 0 {
            return Ok(None);
        }
        let value = |wanted| {
            let mut all = attributes_of(&link[IFINFOMSG..]);
            all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec())
        };
        let name = value(IFLA_IFNAME).context("a device without a name")?;
        let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
        ensure!(kind == ARPHRD_ETHER, "the network device {name} is not an Ethernet device");
        Ok(Some(Self {
            index: u32::from_ne_bytes(link[4..8].try_into()?),
            name,
            mac: value(IFLA_ADDRESS).context("a device without an address")?,
            mtu: value(IFLA_MTU).context("a device without an MTU")?,
            addresses: Vec::new(),
            twin: None,
        }))
    }

    /// A pair of veth devices: the twin, and the end that stays and is tied to the device.
    fn make_twin(&mut self, there: &Socket) -> Result<()> {
        let (twin, stays) = (format!("sbx-{}", self.index), format!("sby-{}", self.index));
        let mut peer = ifinfo(0, 0);
        attribute(&mut peer, IFLA_IFNAME, &terminated(&twin));
        attribute(&mut peer, IFLA_ADDRESS, &self.mac);
        attribute(&mut peer, IFLA_MTU, &self.mtu);
        let (mut data, mut info) = (Vec::new(), Vec::new());
        attribute(&mut data, VETH_INFO_PEER, &peer);
        attribute(&mut info, IFLA_INFO_KIND, b"veth");
        attribute(&mut info, IFLA_INFO_DATA, &data);
        let mut body = ifinfo(0, IFF_UP);
        attribute(&mut body, IFLA_IFNAME, &terminated(&stays));
        attribute(&mut body, IFLA_MTU, &self.mtu);
        attribute(&mut body, IFLA_LINKINFO, &info);
        // What is left of a container that was in front of this namespace before.
        if let Ok(old) = there.index_of(&stays) {
            let _ = there.ask(RTM_DELLINK, NLM_F_ACK, &ifinfo(old, 0));
        }
        there.ask(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE, &body).context("make a pair of veths")?;
        self.twin = Some(there.index_of(&twin)?);
        let stays = there.index_of(&stays)?;
        tc::clear(there, self.index)?;
        tc::redirect(there, self.index, stays)?;
        tc::redirect(there, stays, self.index)
    }

    fn move_twin(
        &mut self,
        there: &Socket,
        inside: &Socket,
        container: BorrowedFd<'_>,
    ) -> Result<u32> {
        let mut body = ifinfo(self.twin.context("there is a twin")?, 0);
        attribute(&mut body, IFLA_NET_NS_FD, &container.as_raw_fd().to_ne_bytes());
        attribute(&mut body, IFLA_IFNAME, &terminated(&self.name));
        there.ask(RTM_NEWLINK, NLM_F_ACK, &body).context("move it")?;
        self.twin = None;
        let number = inside.index_of(&self.name)?;
        inside.ask(RTM_NEWLINK, NLM_F_ACK, &ifinfo(number, IFF_UP)).context("set it up")?;
        for address in &self.addresses {
            let mut address = address.clone();
            address[2] |= IFA_F_NODAD;
            address[4..8].copy_from_slice(&number.to_ne_bytes());
            inside.ask(RTM_NEWADDR, NLM_F_ACK, &address).context("give it its addresses")?;
        }
        Ok(number)
    }
}

/// A route of a device as one of its twin, with whether it has a gateway; none for what the kernel adds
/// by itself, and for other tables than the main one.
fn for_twin(route: &[u8], numbers: &[(u32, u32)]) -> Option<(bool, Vec<u8>)> {
    let (head, rest) = route.split_at_checked(RTMSG)?;
    // Table, protocol, scope, kind.
    if head[4] != RT_TABLE_MAIN || head[5] == RTPROT_KERNEL || head[7] != RTN_UNICAST {
        return None;
    }
    let (mut body, mut has_gateway, mut has_device) = (head.to_vec(), false, false);
    // States of the next hop are told, and not set.
    body[8..12].fill(0);
    for (kind, value) in attributes_of(rest) {
        match kind {
            RTA_OIF => {
                let device = u32::from_ne_bytes(value.try_into().ok()?);
                let (_, twin) = numbers.iter().find(|(index, _)| *index == device)?;
                attribute(&mut body, RTA_OIF, &twin.to_ne_bytes());
                has_device = true;
                continue;
            }
            RTA_CACHEINFO | RTA_TABLE => continue,
            RTA_GATEWAY | RTA_VIA => has_gateway = true,
            _ => {}
        }
        attribute(&mut body, kind, value);
    }
    has_device.then_some((has_gateway, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_the_engines_are_told_from_those_of_users() {
        let made = |engine, path: &str| made_by(engine, Path::new(path));
        assert!(made(Engine::Podman, "/run/netns/netns-3f5a"));
        assert!(made(Engine::Containerd, "/var/run/netns/cni-3f5a"));
        assert!(!made(Engine::CriO, "/var/run/netns/3f5a"), "of all containers of a pod");
        for path in ["/proc/17/ns/net", "/run/netns/mine", "/run/user/netns-1"] {
            assert!(!made(Engine::Podman, path), "{path}");
            assert!(!made(Engine::Containerd, path), "{path}");
            assert!(!made(Engine::Docker, path), "{path}");
        }
    }

    #[test]
    fn routes_are_those_of_the_twin() {
        let route = |head: [u8; RTMSG], device: u32, gateway: bool| {
            let mut body = head.to_vec();
            if gateway {
                attribute(&mut body, RTA_GATEWAY, &[10, 88, 0, 1]);
            }
            attribute(&mut body, RTA_OIF, &device.to_ne_bytes());
            body
        };
        let main = [2, 0, 0, 0, RT_TABLE_MAIN, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        let twin = for_twin(&route(main, 2, true), &[(2, 9)]);
        assert_eq!(twin, Some((true, route(main, 9, true))));
        assert!(!for_twin(&route(main, 2, false), &[(2, 9)]).unwrap().0);
        assert_eq!(for_twin(&route(main, 3, true), &[(2, 9)]), None, "of a device without a twin");
        let (mut local, mut own) = (main, main);
        local[4] = 255;
        own[5] = RTPROT_KERNEL;
        assert_eq!(for_twin(&route(local, 2, false), &[(2, 9)]), None);
        assert_eq!(for_twin(&route(own, 2, false), &[(2, 9)]), None);
        assert_eq!(for_twin(&[0; 3], &[]), None, "cut off");
    }
}
