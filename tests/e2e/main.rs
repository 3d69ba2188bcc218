//! End-to-end tests with a real Docker engine: what a user of `docker run --runtime=sysbox` relies on.
//!
//! A module a theme. Each test makes its own containers and takes `shared()` so that those which look
//! at the whole machine (`alone()`) wait for the others.

mod api;
mod callers;
mod cleanup;
mod engines;
mod errors;
mod exec;
mod filesystems;
mod ids;
mod inner_docker;
mod kernels;
mod limits;
mod mounts;
mod nested;
mod pods;
mod resources;
mod rootfs;
mod storage;
mod survival;
mod systemd;
mod tools;
mod volumes;
