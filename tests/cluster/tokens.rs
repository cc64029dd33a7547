//! Rejection of missing, mistyped and wrong tokens.

use std::process::Command;

use sha2::{Digest, Sha256};

use super::job::{Job, program};
use super::test_cluster::{Scratch, TestCluster, refused, roadshow};

const BASE32_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Errors of a joining node, a command and a program with that token.
fn rejections(site: &TestCluster, token: Option<&str>) -> [String; 3] {
    // An empty home, so that no session's token is found.
    let elsewhere = Scratch::new();
    let with_token = |mut command: Command| {
        command.env("TMPDIR", elsewhere.path());
        match token {
            Some(token) => command.env("ROADSHOW_TOKEN", token),
            None => command.env_remove("ROADSHOW_TOKEN"),
        };
        command
    };
    let command = |arguments: &[&str]| {
        let (code, said) = refused(with_token(roadshow(elsewhere.path(), &[], arguments)));
        assert_eq!(code, 4, "{said}");
        said
    };
    let node = command(&["start", "--address", &site.address, "--host=127.0.0.1", "--num-cpus=1"]);
    let list = command(&["list", "nodes", "--address", &site.address]);
    let Err(program) = Job::start(with_token(program(site, "obey"))) else { panic!("the program joins") };
    [node, list, program]
}

#[track_caller]
fn all_say(said: &[String], what: &str) {
    assert!(said.iter().all(|said| said.contains(what)), "{what:?} in each of {said:#?}");
}

/// Checks that a new job works, and that nothing else has joined.
#[track_caller]
pub(super) fn is_as_before(site: &TestCluster) {
    let mut job = Job::join(site);
    job.spawn("a", Default::default());
    assert_eq!(job.add("a", 1), 1);
    job.finish();
    assert_eq!(site.list("nodes").len(), site.nodes.len());
    let jobs = site.list("jobs");
    assert_eq!(jobs.len(), 1, "{jobs:#?}");
}

#[test]
fn missing_token_is_rejected() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let said = rejections(&site, None);
    all_say(&said, "no token");
    all_say(&said, "ROADSHOW_TOKEN");
    is_as_before(&site);
}

#[test]
fn mistyped_token_has_another_error_than_a_wrong_one() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut letters = site.token.clone().into_bytes();
    // A single changed letter breaks the checksum.
    letters[20] = if letters[20] == b'a' { b'b' } else { b'a' };
    let said = rejections(&site, Some(std::str::from_utf8(&letters).unwrap()));
    all_say(&said, "mistyped");
    all_say(&rejections(&site, Some(&site.token[..site.token.len() - 1])), "mistyped");
    is_as_before(&site);
}

#[test]
fn token_of_another_cluster_is_rejected() {
    let sites = [TestCluster::head(&["--num-cpus=1"]), TestCluster::head(&["--num-cpus=1"])];
    assert_ne!(sites[0].token, sites[1].token);
    all_say(&rejections(&sites[0], Some(&sites[1].token)), "another cluster");
    sites.iter().for_each(is_as_before);
}

#[test]
fn token_with_another_secret_is_rejected() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut bytes = decode(site.token.strip_prefix("rs1_").unwrap());
    // Layout: digest of the CA's key (32 bytes) | secret (16 bytes) | checksum (4 bytes).
    bytes[40] ^= 1;
    let checksum = Sha256::digest(&bytes[..48]);
    bytes[48..52].copy_from_slice(&checksum[..4]);
    all_say(&rejections(&site, Some(&format!("rs1_{}", encode(&bytes)))), "secret is not this cluster's");
    is_as_before(&site);
}

fn decode(text: &str) -> Vec<u8> {
    let values = text.bytes().map(|letter| BASE32_ALPHABET.iter().position(|it| *it == letter).unwrap());
    let bits: Vec<_> = values.flat_map(|value| (0..5).rev().map(move |at| value >> at & 1)).collect();
    bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | *bit as u8)).collect()
}

fn encode(bytes: &[u8]) -> String {
    let bits: Vec<_> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let letter = |bits: &[u8]| (0..5).fold(0, |value, at| value << 1 | bits.get(at).copied().unwrap_or(0));
    bits.chunks(5).map(|bits| char::from(BASE32_ALPHABET[usize::from(letter(bits))])).collect()
}
