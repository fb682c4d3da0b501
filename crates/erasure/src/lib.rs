//! Turns a segment into fragments, and any sufficient set of fragments back into the segment.
