//! Releases one apart understand each other: what the first version of the protocol sent, byte by byte,
//! means today what it meant then, and what it would be sent today it can read.
//!
//! The bytes are never changed. A new version adds its own.

use prost::Message;
use sysbox_ipc::proto::{
    self, FsReply, FsRequest, MgrReply, MgrRequest, fs_reply, fs_request, mgr_reply, mgr_request,
};

const REGISTER: &str = "0801124e0a02633112022f721a0810a08d0e18808004220810a08d0e188080042880800432052f646174613a180a052f752f6331120f0a066d656d6f727912052f6d2f633142052f732f63314a022f6f5001";
const ATTACH: &str = "08011a040a026331";
const COMMIT: &str = "080122060a026331102a";
const UNREGISTER: &str = "08012a040a026331";
const STATUS: &str = "08013200";
const REGISTERED: &str = "1a400a0810a08d0e18808004120810a08d0e188080041a150a022f76120f2f7661722f6c69622f646f636b657222052f66732f372a0c70726f632f6d656d696e666f";
const REFUSED: &str = "0a080a026e6f1202646f";
const ADD: &str =
    "0801122a0a026331100718a08d0e20a08d0e2a180a052f752f6331120f0a066d656d6f727912052f6d2f63313063";
const FORGET: &str = "08011a040a026331";
const ADDED: &str = "1a150a052f66732f37120c70726f632f6d656d696e666f";
const FS_STATUS: &str = "220d0a05302e312e3010051a026331";

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |n: usize| u8::from_str_radix(&hex[n..n + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(pair).collect()
}

fn mapping() -> proto::IdMapping {
    proto::IdMapping { container_id: 0, host_id: 231_072, size: 65_536 }
}

fn cgroups() -> proto::CgroupPaths {
    let v1 = [("memory".to_owned(), "/m/c1".to_owned())].into();
    proto::CgroupPaths { unified: "/u/c1".into(), v1 }
}

/// Both ways: what was sent is understood, and what is sent is what was.
fn same<M: Message + Default + PartialEq + std::fmt::Debug>(hex: &str, message: &M) {
    assert_eq!(&M::decode(&*bytes(hex)).expect("it can be decoded"), message);
    assert_eq!(message.encode_to_vec(), bytes(hex), "{message:?}");
}

#[test]
fn calls_of_the_first_runtime_are_understood() {
    let register = proto::Register {
        id: "c1".into(),
        rootfs: "/r".into(),
        uid_mappings: vec![mapping()],
        gid_mappings: vec![mapping()],
        id_range_size: 65_536,
        mount_destinations: vec!["/data".into()],
        cgroups: Some(cgroups()),
        state_dir: "/s/c1".into(),
        owner_dir: "/o".into(),
        inner_stores: true,
        ..Default::default()
    };
    let id = || "c1".to_owned();
    for (hex, call) in [
        (REGISTER, mgr_request::Call::Register(register)),
        (ATTACH, mgr_request::Call::AttachListener(proto::AttachListener { id: id() })),
        (
            COMMIT,
            mgr_request::Call::Commit(proto::Commit {
                id: id(),
                init_pid: 42,
                ..Default::default()
            }),
        ),
        (UNREGISTER, mgr_request::Call::Unregister(proto::Unregister { id: id() })),
        (STATUS, mgr_request::Call::Status(proto::Empty {})),
    ] {
        same(hex, &MgrRequest { protocol: 1, call: Some(call) });
    }
}

#[test]
fn the_first_runtime_understands_the_answers() {
    let registered = proto::Registered {
        uid_mappings: vec![mapping()],
        gid_mappings: vec![mapping()],
        volumes: vec![proto::Volume { source: "/v".into(), destination: "/var/lib/docker".into() }],
        emulated_dir: "/fs/7".into(),
        emulated_files: vec!["proc/meminfo".into()],
    };
    let refused = proto::Error { message: "no".into(), remedy: "do".into() };
    same(REGISTERED, &MgrReply { result: Some(mgr_reply::Result::Registered(registered)) });
    same(REFUSED, &MgrReply { result: Some(mgr_reply::Result::Error(refused)) });
}

#[test]
fn the_first_manager_and_the_first_sysbox_fs_are_understood() {
    let add = proto::AddContainer {
        id: "c1".into(),
        key: 7,
        uid: 231_072,
        gid: 231_072,
        cgroups: Some(cgroups()),
        created_boottime_ns: 99,
        ..Default::default()
    };
    let forget = proto::RemoveContainer { id: "c1".into() };
    same(ADD, &FsRequest { protocol: 1, call: Some(fs_request::Call::AddContainer(add)) });
    same(FORGET, &FsRequest { protocol: 1, call: Some(fs_request::Call::RemoveContainer(forget)) });
    let added =
        proto::Added { emulated_dir: "/fs/7".into(), emulated_files: vec!["proc/meminfo".into()] };
    same(ADDED, &FsReply { result: Some(fs_reply::Result::Added(added)) });
    let status = proto::FsStatus {
        version: "0.1.0".into(),
        pid: 5,
        containers: vec!["c1".into()],
        ..Default::default()
    };
    same(FS_STATUS, &FsReply { result: Some(fs_reply::Result::Status(status)) });
}

#[test]
fn what_a_later_release_adds_is_passed_over() {
    // Field 500 with the number 1, in the message and in the call within it.
    let unknown = [0xa0, 0x1f, 0x01];
    let mut later = bytes(UNREGISTER);
    later.extend(unknown);
    let read = MgrRequest::decode(&*later).expect("it can be decoded");
    assert_eq!(read.encode_to_vec(), bytes(UNREGISTER));
    // A call that is not known: it is refused by the one who is asked, and breaks nothing.
    let call = [0x08, 0x02, 0xa2, 0x1f, 0x00];
    let read = MgrRequest::decode(&call[..]).expect("it can be decoded");
    assert_eq!((read.protocol, read.call), (2, None));
}
