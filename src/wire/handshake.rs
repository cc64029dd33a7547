//! Frames of a successful handshake.

use bytes::BytesMut;

use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, MAGIC, PREFIX_BYTES, VERSION, WireError};
use crate::id::{HostUid, LinkId};

/// Length of an identity in bytes: host id and incarnation.
const IDENTITY_BYTES: usize = 16;
const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;
const TERMS_BYTES: usize = 4 * 8;
const RESUME_BYTES: usize = 3 * 4 + 8;

const HELLO_BYTES: usize = PREFIX_BYTES
    + MAGIC.len()
    + 2
    + 2 * IDENTITY_BYTES
    + 8
    + 8
    + 1
    + TERMS_BYTES
    + RESUME_BYTES
    + NONCE_BYTES;
const UNPROVEN_CHALLENGE_BYTES: usize = PREFIX_BYTES + 2 + IDENTITY_BYTES + TERMS_BYTES + NONCE_BYTES;
const WELCOME_BYTES: usize = PREFIX_BYTES + RESUME_BYTES;

/// Purpose of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Carries the session of the two hosts.
    Link = 0,
    /// Carries [`Heartbeat`](super::Heartbeat)s for the link that the Hello names, on threads that
    /// run no handlers.
    Heartbeat = 1,
}

/// Session parameters of a host, the same on all of its links.
///
/// Layout: frame_bytes_max 8, outgoing_bytes_max 8, window_bytes 8, schema 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionParameters {
    /// Longest frame in bytes that the sender accepts.
    pub frame_bytes_max: u64,
    /// Bytes of frames that the sender retains unacknowledged. A quarter of it must be acknowledged
    /// without delay.
    pub outgoing_bytes_max: u64,
    /// Bytes of unhandled messages that each actor of the sender accepts from one peer.
    pub window_bytes: u64,
    /// Digest of the sender's type table.
    pub schema: u64,
}

/// Position of one side in a session, from which the other side resumes.
///
/// Layout: generation 4, resets 4, peer_generation 4, received 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Generation of the sender's half of the session. A host that forgot its peer starts a higher
    /// generation. A receiver that knows a lower one learns that everything before is forgotten.
    pub generation: u32,
    /// Number of times that the sender has dropped its half of the session.
    pub epoch: u32,
    /// Generation of the receiver's half that `received` counts for; 0 before the first link.
    pub peer_generation: u32,
    /// Sequenced frames of that generation that the sender has received.
    pub received: u64,
}

/// The initiator's identity and the host that it dials.
///
/// Layout: [`MAGIC`] 4, version 2, from 16, to 16, link 8, replaces 8, purpose 1, terms 32, resume 20,
/// nonce 32.
/// Every version of the protocol begins its hello with the fields before `resume`, so that a listener can
/// read and refuse the hello of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the protocol that the sender speaks.
    pub version: u16,
    /// Identity of the initiator.
    pub from: HostUid,
    /// Identity of the host that is dialled.
    pub to: HostUid,
    /// Id of this attempt; for a heartbeat link, the id of the link that it accompanies.
    pub link: LinkId,
    /// Link that this one replaces, or [`LinkId::NONE`].
    pub replaces: LinkId,
    /// Purpose of the link.
    pub purpose: Purpose,
    /// Session parameters of the sender.
    pub terms: SessionParameters,
    /// Position of the sender in the session.
    pub resume: Resume,
    /// Random bytes, drawn for this attempt.
    pub nonce: [u8; 32],
}

impl Hello {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        put_prefix(FrameKind::Hello, 0, 0, HELLO_BYTES, out);
        out.put_slice(&MAGIC);
        out.put_u16(self.version);
        put_identity(self.from, out);
        put_identity(self.to, out);
        out.put_u64(self.link.0);
        out.put_u64(self.replaces.0);
        out.put_u8(self.purpose as u8);
        self.terms.put(out);
        self.resume.put(out);
        out.put_slice(&self.nonce);
        HELLO_BYTES
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        if reader.array()? != MAGIC {
            return Err(WireError::NotRoadshow);
        }
        let version = reader.u16()?;
        let mut hello = Self {
            version,
            from: reader.identity()?,
            to: reader.identity()?,
            link: reader.link()?,
            replaces: reader.link()?,
            purpose: Purpose::read(&mut reader, version)?,
            terms: SessionParameters::read(&mut reader)?,
            resume: Resume::default(),
            nonce: [0; NONCE_BYTES],
        };
        // Only the fields before `resume` have the same layout in every version.
        if version == VERSION {
            hello.resume = Resume::read(&mut reader)?;
            hello.nonce = reader.array()?;
            // Bytes after the fields of this version are malformed. Those of another version are
            // ignored, since it is refused anyway.
            reader.finish()?;
        }
        Ok(hello)
    }
}

/// The acceptor's identity, and the proof that it knows the secret.
///
/// Layout: version 2, from 16, terms 32, nonce 32, proof 32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The version of the protocol that the sender speaks.
    pub version: u16,
    /// Identity of the acceptor.
    pub from: HostUid,
    /// Session parameters of the sender.
    pub terms: SessionParameters,
    /// Random bytes, drawn for this connection.
    pub nonce: [u8; 32],
    /// Proof of the acceptor over the Hello and this frame.
    pub proof: [u8; 32],
}

impl Challenge {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        self.put_unproven(out);
        out.put_slice(&self.proof);
        UNPROVEN_CHALLENGE_BYTES + PROOF_BYTES
    }

    /// Returns the frame up to its proof, which the proof covers together with the Hello.
    #[must_use]
    pub fn unproven(&self) -> BytesMut {
        let mut bytes = BytesMut::with_capacity(UNPROVEN_CHALLENGE_BYTES);
        self.put_unproven(&mut bytes);
        bytes
    }

    fn put_unproven(&self, out: &mut impl FrameSink) {
        put_prefix(FrameKind::Challenge, 0, 0, UNPROVEN_CHALLENGE_BYTES + PROOF_BYTES, out);
        out.put_u16(self.version);
        put_identity(self.from, out);
        self.terms.put(out);
        out.put_slice(&self.nonce);
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let challenge = Self {
            version: reader.u16()?,
            from: reader.identity()?,
            terms: SessionParameters::read(&mut reader)?,
            nonce: reader.array()?,
            proof: reader.array()?,
        };
        reader.finish()?;
        Ok(challenge)
    }
}

/// The initiator's proof that it knows the secret. Layout: proof 32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Proof of the initiator over the Hello and the Challenge.
    pub proof: [u8; 32],
}

impl Proof {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        put_prefix(FrameKind::Proof, 0, 0, PREFIX_BYTES + PROOF_BYTES, out);
        out.put_slice(&self.proof);
        PREFIX_BYTES + PROOF_BYTES
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let proof = Self { proof: reader.array()? };
        reader.finish()?;
        Ok(proof)
    }
}

/// The acceptor admits the link. Layout: resume 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Position of the sender in the session.
    pub resume: Resume,
}

impl Welcome {
    /// Writes the frame and returns its length in bytes.
    pub fn put(self, out: &mut impl FrameSink) -> usize {
        put_prefix(FrameKind::Welcome, 0, 0, WELCOME_BYTES, out);
        self.resume.put(out);
        WELCOME_BYTES
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let resume = Resume::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { resume })
    }
}

impl Purpose {
    fn read(reader: &mut Reader<'_>, version: u16) -> Result<Self, WireError> {
        match reader.u8()? {
            0 => Ok(Self::Link),
            1 => Ok(Self::Heartbeat),
            // A Hello of another version is refused with `Version`, which is the better
            // explanation.
            _ if version != VERSION => Ok(Self::Link),
            _ => Err(reader.malformed("its purpose is unknown")),
        }
    }
}

impl SessionParameters {
    fn put(&self, out: &mut impl FrameSink) {
        out.put_u64(self.frame_bytes_max);
        out.put_u64(self.outgoing_bytes_max);
        out.put_u64(self.window_bytes);
        out.put_u64(self.schema);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            frame_bytes_max: reader.u64()?,
            outgoing_bytes_max: reader.u64()?,
            window_bytes: reader.u64()?,
            schema: reader.u64()?,
        })
    }
}

impl Resume {
    fn put(self, out: &mut impl FrameSink) {
        out.put_u32(self.generation);
        out.put_u32(self.epoch);
        out.put_u32(self.peer_generation);
        out.put_u64(self.received);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            generation: reader.u32()?,
            epoch: reader.u32()?,
            peer_generation: reader.u32()?,
            received: reader.u64()?,
        })
    }
}

fn put_identity(identity: HostUid, out: &mut impl FrameSink) {
    out.put_u64(identity.host.0);
    out.put_u64(identity.incarnation.0);
}
