//! The records of TLS 1.3 (RFC 8446, section 5) after the handshake: sealed into the buffer that is sent, opened in the
//! buffer that was received. Pure: it sees bytes and keys, and no socket.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, Error};
use std::ops::Range;

/// The most plaintext that one record carries.
pub(super) const PLAINTEXT_MAX: usize = 1 << 14;
const HEADER_LEN: usize = 5;
const TAG_LEN: usize = 16;
/// Content, its type, padding and tag together.
const CIPHERTEXT_MAX: usize = PLAINTEXT_MAX + 256;
/// What a record is longer than its plaintext.
pub(super) const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;
/// The longest record that a peer may send.
pub(super) const RECORD_MAX: usize = HEADER_LEN + CIPHERTEXT_MAX;
/// Records under one key: half of what AES-GCM allows (RFC 8446, section 5.5), 128 GiB of long ones.
pub(super) const RECORDS_PER_KEY_MAX: u64 = 1 << 23;
/// Encrypted records all look like application data from TLS 1.2.
const HEADER_START: [u8; 3] = [0x17, 0x03, 0x03];

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Alert,
    Handshake,
    Data,
}

impl Content {
    fn code(self) -> u8 {
        match self {
            Content::Alert => 21,
            Content::Handshake => 22,
            Content::Data => 23,
        }
    }

    fn of(code: u8) -> Option<Content> {
        [Content::Alert, Content::Handshake, Content::Data].into_iter().find(|content| content.code() == code)
    }
}

/// What a peer did wrong; each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a record is longer than TLS allows")]
    Oversized,
    #[error("a record was changed on its way")]
    BadRecord,
    #[error("a record that has no place here")]
    Unexpected,
    #[error("a message does not read")]
    Undecodable,
    #[error("too many records without data")]
    Chatter,
    #[error("the peer broke off: alert {0}")]
    Alert(u8),
}

impl Fault {
    /// The alert that tells the peer; `None` when it told us.
    pub(super) fn alert(self) -> Option<u8> {
        match self {
            Fault::Oversized => Some(22),
            Fault::BadRecord => Some(20),
            Fault::Unexpected | Fault::Chatter => Some(10),
            Fault::Undecodable => Some(50),
            Fault::Alert(_) => None,
        }
    }
}

/// One direction of a connection: its key, and how many records went.
struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Direction, Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher that is not known here".to_owned())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref());
        let key = LessSafeKey::new(key.map_err(|_| Error::General("a key of a wrong length".to_owned()))?);
        let iv =
            iv.as_ref().try_into().map_err(|_| Error::General("a nonce of a wrong length".to_owned()))?;
        Ok(Direction { key, iv, sequence })
    }

    /// The nonce of the next record. Each is used once: the count only rises, and keys are renewed long before it ends.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        let count = self.sequence.to_be_bytes();
        nonce.iter_mut().rev().zip(count.iter().rev()).for_each(|(byte, count)| *byte ^= count);
        self.sequence = self.sequence.checked_add(1).expect("2^64 records take longer than anything lives");
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what is sent.
pub(super) struct Sealer(Direction);

impl Sealer {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Sealer, Error> {
        Direction::new(secrets).map(Sealer)
    }

    /// How many records this key sealed.
    pub(super) fn sealed(&self) -> u64 {
        self.0.sequence
    }

    /// Writes a record of at most [`PLAINTEXT_MAX`] bytes to the front of `out`; gives its length, which is
    /// [`OVERHEAD`] more.
    pub(super) fn seal(&mut self, content: Content, bytes: &[u8], out: &mut [u8]) -> usize {
        let length = bytes.len() + OVERHEAD;
        let header = header(length - HEADER_LEN);
        let (head, rest) = out[..length].split_at_mut(HEADER_LEN);
        head.copy_from_slice(&header);
        let (sealed, type_and_tag) = rest.split_at_mut(bytes.len());
        let nonce = self.0.next_nonce();
        let content = [content.code()];
        self.0
            .key
            .seal_out_of_place_scatter(nonce, Aad::from(header), bytes, sealed, &content, type_and_tag)
            .expect("the buffers have the lengths that the cipher asks for");
        length
    }
}

fn header(length: usize) -> [u8; HEADER_LEN] {
    let [a, b, c] = HEADER_START;
    let [high, low] = u16::try_from(length).expect("a record is shorter than 2^16 bytes").to_be_bytes();
    [a, b, c, high, low]
}

/// Opens what was received.
pub(super) struct Opener(Direction);

impl Opener {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Opener, Error> {
        Direction::new(secrets).map(Opener)
    }

    /// The length of the record at the front of `bytes`, or `None` while its end is missing.
    pub(super) fn record_len(bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let &[kind, _, _, high, low, ..] = bytes else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HEADER_START[0] {
            return Err(Fault::Unexpected);
        }
        if length > CIPHERTEXT_MAX {
            return Err(Fault::Oversized);
        }
        let length = HEADER_LEN + length;
        Ok((bytes.len() >= length).then_some(length))
    }

    /// Opens one whole record in place; says where in it the plaintext lies.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(Content, Range<usize>), Fault> {
        let (head, rest) = record.split_at_mut(HEADER_LEN);
        let header: [u8; HEADER_LEN] = (&*head).try_into().expect("split at this length");
        let sealed_len = rest.len().checked_sub(TAG_LEN).ok_or(Fault::BadRecord)?;
        let (sealed, tag) = rest.split_at_mut(sealed_len);
        let nonce = self.0.next_nonce();
        let opened = self.0.key.open_in_place_separate_tag(nonce, Aad::from(header), tag, sealed);
        let opened = opened.map_err(|_| Fault::BadRecord)?;
        // The content's type is the last byte that is not padding.
        let type_at = opened.iter().rposition(|byte| *byte != 0).ok_or(Fault::Unexpected)?;
        if type_at > PLAINTEXT_MAX {
            return Err(Fault::Oversized);
        }
        let content = Content::of(opened[type_at]).ok_or(Fault::Unexpected)?;
        Ok((content, HEADER_LEN..HEADER_LEN + type_at))
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Fault, OVERHEAD, Opener, PLAINTEXT_MAX, RECORD_MAX, Sealer};
    use rustls::ConnectionTrafficSecrets;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn secrets() -> (u64, ConnectionTrafficSecrets) {
        (0, ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::from([9; 12]) })
    }

    fn pair() -> (Sealer, Opener) {
        (Sealer::new(secrets()).unwrap(), Opener::new(secrets()).unwrap())
    }

    #[test]
    fn records_of_every_length_read_back_in_order() {
        let (mut sealer, mut opener) = pair();
        let mut buffer = vec![0; RECORD_MAX];
        for length in [0, 1, 15, 16, 17, PLAINTEXT_MAX - 1, PLAINTEXT_MAX] {
            let bytes = vec![0xa5; length];
            let record = sealer.seal(Content::Data, &bytes, &mut buffer);
            assert_eq!(record, length + OVERHEAD);
            assert_eq!(Opener::record_len(&buffer[..record]), Ok(Some(record)));
            assert_eq!(Opener::record_len(&buffer[..record - 1]), Ok(None));
            let (content, plain) = opener.open(&mut buffer[..record]).unwrap();
            assert_eq!((content, &buffer[plain]), (Content::Data, bytes.as_slice()));
        }
    }

    #[test]
    fn changed_repeated_and_reordered_records_are_refused() {
        let mut buffer = vec![0; 256];
        let length = pair().0.seal(Content::Data, b"some bytes", &mut buffer);
        for at in 0..length {
            let mut changed = buffer[..length].to_vec();
            changed[at] ^= 1;
            assert_eq!(pair().1.open(&mut changed), Err(Fault::BadRecord), "byte {at}");
        }
        let (_, mut opener) = pair();
        opener.open(&mut buffer[..length].to_vec()).unwrap();
        assert_eq!(opener.open(&mut buffer[..length]), Err(Fault::BadRecord));
    }

    #[test]
    fn padding_is_taken_off_and_content_without_a_type_refused() {
        for (inner, expected) in [
            (&b"abc\x17\0\0\0"[..], Ok((Content::Data, 3))),
            (b"\x01\0\x15", Ok((Content::Alert, 2))),
            (b"\0\0\0", Err(Fault::Unexpected)),
            (b"abc\x18", Err(Fault::Unexpected)),
        ] {
            // The sealer adds a type of its own, so the padding is sealed by hand.
            let (mut sealer, mut opener) = pair();
            let header = super::header(inner.len() + 16);
            let mut record = [&header[..], inner, &[0; 16]].concat();
            let (sealed, tag) = record[5..].split_at_mut(inner.len());
            let nonce = sealer.0.next_nonce();
            let aad = super::Aad::from(header);
            tag.copy_from_slice(
                sealer.0.key.seal_in_place_separate_tag(nonce, aad, sealed).unwrap().as_ref(),
            );
            let opened = opener.open(&mut record).map(|(content, plain)| (content, plain.len()));
            assert_eq!(opened, expected, "{inner:?}");
        }
    }

    #[test]
    fn headers_that_no_record_has_are_refused() {
        assert_eq!(Opener::record_len(&[0x17, 3, 3, 0x41, 0x01]), Err(Fault::Oversized));
        assert_eq!(Opener::record_len(&[0x17, 3, 3, 0x41, 0x00]), Ok(None));
        for kind in [0x14, 0x15, 0x16, 0x18, 0] {
            assert_eq!(Opener::record_len(&[kind, 3, 3, 0, 1, 1]), Err(Fault::Unexpected));
        }
        assert_eq!(pair().1.open(&mut [0x17, 3, 3, 0, 15]), Err(Fault::BadRecord));
    }
}
