//! Turns a segment into fragments, and any sufficient set of fragments back into the segment.
//!
//! The code is systematic, contiguous and linear over GF(2^8): data fragment `i` is bytes `[i*L, (i+1)*L)` of
//! the segment, and each parity fragment is one row of a Cauchy matrix, as ISA-L's `gf_gen_cauchy1_matrix` lays
//! it out. A matrix code is chosen over the FFT codes because one lost range then costs one matrix row instead
//! of a whole transform, and because anybody's ISA-L can read what we wrote. `docs/formats/fragment.md` draws the
//! bytes.
//!
//! The layers, from bytes upwards: `field` multiplies two bytes, `matrix` says which coefficients make a fragment
//! and which undo a loss, `kernel` multiplies many bytes at the speed of the processor, and [`Encoder`] and
//! [`Decoder`] check shapes and drive it.
//!
//! This crate does not hash, does no input or output, allocates no segment unless asked to, and detects no
//! corruption: a wrong source byte gives a wrong decoded byte, so callers check sources or results by their
//! hashes. Arithmetic is not constant-time; segments are sealed before they get here.
//!
//! ```
//! use seedbank_erasure::{Decoder, Encoder, Scheme};
//!
//! let scheme = Scheme::new(4, 8)?;
//! let fragments = Encoder::new(scheme).encode(b"a segment is up to 64 MiB of sealed chunks");
//!
//! // Fragments 0 and 2 are gone: bytes 3..9 of fragment 2 come from the same bytes of any four others.
//! let decoder = Decoder::new(scheme, &[1, 3, 6, 7], &[2])?;
//! let sources = [1, 3, 6, 7].map(|index: usize| &fragments[index][3..9]);
//! let mut rebuilt = [0; 6];
//! decoder.decode(&sources, &mut [&mut rebuilt])?;
//! assert_eq!(rebuilt, fragments[2][3..9]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decoder;
mod encoder;
mod field;
mod kernel;
mod matrix;
mod scheme;
mod transform;

pub use decoder::{Decoder, DecoderError};
pub use encoder::{COLUMN_BYTES, Encoder};
pub use kernel::Kernel;
pub use scheme::{FRAGMENT_ALIGNMENT_BYTES, Scheme, SchemeError, TOTAL_MAX};
pub use transform::ShapeError;
