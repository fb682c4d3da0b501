//! The bytes of a range as they came: one piece from each fragment that it touches.

use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// Pieces that follow one another. They are never joined: only what lies across two of them is copied.
pub(crate) struct Pieces(Vec<Bytes>);

impl Pieces {
    pub(super) fn new(pieces: Vec<Bytes>) -> Pieces {
        Pieces(pieces)
    }

    /// Bytes of the range, counted from its first; `None` when it has not so many.
    pub(crate) fn get(&self, wanted: Range<usize>) -> Option<Cow<'_, [u8]>> {
        let len = wanted.end.checked_sub(wanted.start)?;
        let (mut start, mut across) = (0, Vec::new());
        for piece in &self.0 {
            let end = start + piece.len();
            let (from, to) = (wanted.start.max(start), wanted.end.min(end));
            if from < to {
                let part = &piece[from - start..to - start];
                if part.len() == len {
                    return Some(Cow::Borrowed(part));
                }
                across.extend_from_slice(part);
            }
            start = end;
        }
        (across.len() == len).then_some(Cow::Owned(across))
    }
}

#[cfg(test)]
mod tests {
    use super::Pieces;
    use bytes::Bytes;
    use std::borrow::Cow;

    #[test]
    fn only_what_lies_across_pieces_is_copied() {
        let whole: Vec<u8> = (0..=255).collect();
        let cut = |from: usize, to: usize| Bytes::copy_from_slice(&whole[from..to]);
        let pieces = Pieces::new(vec![cut(0, 100), cut(100, 110), cut(110, 256)]);
        for (start, end) in [(0, 100), (5, 7), (100, 110), (110, 256), (99, 101), (90, 200), (0, 256), (3, 3)]
        {
            let got = pieces.get(start..end).unwrap();
            assert_eq!(got[..], whole[start..end]);
            let is_within = start == end
                || [(0, 100), (100, 110), (110, 256)].iter().any(|(from, to)| start >= *from && end <= *to);
            assert_eq!(matches!(got, Cow::Borrowed(_)) || start == end, is_within, "{start}..{end}");
        }
        assert!(pieces.get(250..257).is_none() && pieces.get(300..301).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "what a broken footer may ask for")]
        let reversed = pieces.get(5..4);
        assert!(reversed.is_none());
    }
}
