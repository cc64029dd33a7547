//! The frames of a handshake that goes well.

use bytes::BytesMut;

use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, MAGIC, PREFIX_BYTES, VERSION, WireError};
use crate::id::{Identity, LinkId};

/// Identity: host and incarnation.
const IDENTITY_BYTES: usize = 16;
const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;

const HELLO_BYTES: usize = PREFIX_BYTES + MAGIC.len() + 2 + 2 * IDENTITY_BYTES + 8 + 8 + 8 + NONCE_BYTES;
const UNPROVEN_CHALLENGE_BYTES: usize = PREFIX_BYTES + 2 + IDENTITY_BYTES + 8 + NONCE_BYTES;

/// The side that dialled says who it is and whom it wants to reach.
///
/// Layout: [`MAGIC`] 4, version 2, from 16, to 16, link 8, replaces 8, frame_bytes_max 8, nonce 32.
/// Every version of the protocol begins its hello with these fields, so that a listener can read
/// and refuse the hello of a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the protocol that the sender speaks.
    pub version: u16,
    /// Who dials.
    pub from: Identity,
    /// Who is to be reached.
    pub to: Identity,
    /// This attempt.
    pub link: LinkId,
    /// The link that this one is to stand in for, or [`LinkId::NONE`].
    pub replaces: LinkId,
    /// The longest frame that the sender accepts, in bytes.
    pub frame_bytes_max: u64,
    /// Drawn at random for this attempt.
    pub nonce: [u8; 32],
}

impl Hello {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        put_prefix(FrameKind::Hello, 0, HELLO_BYTES, out);
        out.put_slice(&MAGIC);
        out.put_u16(self.version);
        put_identity(self.from, out);
        put_identity(self.to, out);
        out.put_u64(self.link.0);
        out.put_u64(self.replaces.0);
        out.put_u64(self.frame_bytes_max);
        out.put_slice(&self.nonce);
        HELLO_BYTES
    }

    pub(super) fn read(mut reader: Reader) -> Result<Self, WireError> {
        if reader.array()? != MAGIC {
            return Err(WireError::NotRoadshow);
        }
        let hello = Self {
            version: reader.u16()?,
            from: reader.identity()?,
            to: reader.identity()?,
            link: reader.link()?,
            replaces: reader.link()?,
            frame_bytes_max: reader.u64()?,
            nonce: reader.array()?,
        };
        if hello.version == VERSION {
            reader.finish()?;
        }
        Ok(hello)
    }
}

/// The side that listens says who it is and proves that it knows the secret.
///
/// Layout: version 2, from 16, frame_bytes_max 8, nonce 32, proof 32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The version of the protocol that the sender speaks.
    pub version: u16,
    /// Who listens.
    pub from: Identity,
    /// The longest frame that the sender accepts, in bytes.
    pub frame_bytes_max: u64,
    /// Drawn at random for this connection.
    pub nonce: [u8; 32],
    /// The listener's proof over the hello and this frame.
    pub proof: [u8; 32],
}

impl Challenge {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        self.put_unproven(out);
        out.put_slice(&self.proof);
        UNPROVEN_CHALLENGE_BYTES + PROOF_BYTES
    }

    /// The frame up to its proof: what the proof covers, with the hello.
    #[must_use]
    pub fn unproven(&self) -> BytesMut {
        let mut bytes = BytesMut::with_capacity(UNPROVEN_CHALLENGE_BYTES);
        self.put_unproven(&mut bytes);
        bytes
    }

    fn put_unproven(&self, out: &mut impl FrameSink) {
        put_prefix(FrameKind::Challenge, 0, UNPROVEN_CHALLENGE_BYTES + PROOF_BYTES, out);
        out.put_u16(self.version);
        put_identity(self.from, out);
        out.put_u64(self.frame_bytes_max);
        out.put_slice(&self.nonce);
    }

    pub(super) fn read(mut reader: Reader) -> Result<Self, WireError> {
        let challenge = Self {
            version: reader.u16()?,
            from: reader.identity()?,
            frame_bytes_max: reader.u64()?,
            nonce: reader.array()?,
            proof: reader.array()?,
        };
        reader.finish()?;
        Ok(challenge)
    }
}

/// The side that dialled proves that it knows the secret too. Layout: proof 32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The dialler's proof over the hello and the challenge.
    pub proof: [u8; 32],
}

impl Proof {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        put_prefix(FrameKind::Proof, 0, PREFIX_BYTES + PROOF_BYTES, out);
        out.put_slice(&self.proof);
        PREFIX_BYTES + PROOF_BYTES
    }

    pub(super) fn read(mut reader: Reader) -> Result<Self, WireError> {
        let proof = Self { proof: reader.array()? };
        reader.finish()?;
        Ok(proof)
    }
}

/// The listener accepts the link. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome;

impl Welcome {
    /// Writes the frame and returns its length in bytes.
    pub fn put(self, out: &mut impl FrameSink) -> usize {
        put_prefix(FrameKind::Welcome, 0, PREFIX_BYTES, out);
        PREFIX_BYTES
    }

    pub(super) fn read(reader: Reader) -> Result<Self, WireError> {
        reader.finish()?;
        Ok(Self)
    }
}

fn put_identity(identity: Identity, out: &mut impl FrameSink) {
    out.put_u64(identity.host.0);
    out.put_u64(identity.incarnation.0);
}
