//! tc(8): what comes in by one network device goes out by another.

use anyhow::{Context, Result};

use super::netlink::{NLM_F_ACK, NLM_F_CREATE, Socket, attribute};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
/// Where filters of incoming packets are attached.
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_U32_TERMINAL: u8 = 1;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;
const ETH_P_ALL: u16 = 3;

/// Takes away what [`redirect`] did to a device, if anything.
pub fn clear(socket: &Socket, device: u32) -> Result<()> {
    match socket.ask(RTM_DELQDISC, NLM_F_ACK, &tcmsg(device, INGRESS_HANDLE, INGRESS, 0)) {
        Err(e) if !is_missing(&e) => Err(e).context("remove the filters of incoming packets"),
        _ => Ok(()),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    use rustix::io::Errno;
    let code = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    [Errno::NOENT, Errno::INVAL].iter().any(|errno| code == Some(errno.raw_os_error()))
}

/// Sends each packet that comes in by one device out by another, of the same namespace.
pub fn redirect(socket: &Socket, from: u32, to: u32) -> Result<()> {
    let mut queue = tcmsg(from, INGRESS_HANDLE, INGRESS, 0);
    attribute(&mut queue, TCA_KIND, b"ingress\0");
    socket
        .ask(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE, &queue)
        .context("add a queue of incoming packets (does the kernel have sch_ingress?)")?;

    // `struct tc_mirred`: number, capabilities, what becomes of the packet here, two counts, what is
    // done, with which device.
    let mut mirred = Vec::new();
    for number in [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to] {
        mirred.extend(number.to_ne_bytes());
    }
    let mut action_options = Vec::new();
    attribute(&mut action_options, TCA_MIRRED_PARMS, &mirred);
    let mut action = Vec::new();
    attribute(&mut action, TCA_ACT_KIND, b"mirred\0");
    attribute(&mut action, TCA_ACT_OPTIONS, &action_options);
    let mut actions = Vec::new();
    attribute(&mut actions, 1, &action);
    // `struct tc_u32_sel` with one key, whose mask is empty: every packet.
    let mut select = vec![TC_U32_TERMINAL, 0, 1, 0];
    select.resize(16 + 16, 0);
    let mut options = Vec::new();
    attribute(&mut options, TCA_U32_SEL, &select);
    attribute(&mut options, TCA_U32_ACT, &actions);
    // Priority 1, of all protocols.
    let mut filter = tcmsg(from, 0, INGRESS_HANDLE, 1 << 16 | u32::from(ETH_P_ALL.to_be()));
    attribute(&mut filter, TCA_KIND, b"u32\0");
    attribute(&mut filter, TCA_OPTIONS, &options);
    socket
        .ask(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE, &filter)
        .context("add a filter (does the kernel have cls_u32 and act_mirred?)")?;
    Ok(())
}

/// A `struct tcmsg`.
fn tcmsg(device: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for number in [device, handle, parent, info] {
        body.extend(number.to_ne_bytes());
    }
    body
}
