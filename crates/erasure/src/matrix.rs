//! Which coefficients make a fragment from the data, and which make it from any `k` other fragments.
//!
//! The generator matrix has `n` rows of `k` coefficients: the identity on top, and below it the Cauchy rows of
//! ISA-L's `gf_gen_cauchy1_matrix(a, n, k)`, `a[i][j] = 1 / (i xor j)`. Every square submatrix of a Cauchy matrix
//! is invertible, which makes the code MDS for every `k < n <= 255`; ISA-L's other generator, `gf_gen_rs_matrix`,
//! is not and therefore not offered.

use crate::field;
use crate::scheme::Scheme;

/// The generator's coefficient of data fragment `column` in fragment `fragment`. Copies repeat their one datum.
pub(crate) fn coefficient(scheme: Scheme, fragment: u8, column: u8) -> u8 {
    if scheme.is_copies() {
        1
    } else if fragment < scheme.data_u8() {
        u8::from(fragment == column)
    } else {
        field::inverse(fragment ^ column)
    }
}

/// For each fragment of `wanted`, the coefficients of `sources` (in their order) that add up to it.
///
/// `sources` are `k` distinct fragments of `scheme`; the caller has checked that.
///
/// The textbook inverts the `k x k` matrix of the sources' rows. All but `e` of those rows are usually unit
/// rows, where `e` is the number of data fragments that are not among the sources, so it is enough to invert the
/// `e x e` block of the parity sources' rows in the missing columns. One lost fragment, the common case on the
/// read path, costs O(k) and not O(k^3).
pub(crate) fn decode_rows(scheme: Scheme, sources: &[u8], wanted: &[u8]) -> Vec<Vec<u8>> {
    let is_data = |fragment: u8| fragment < scheme.data_u8();
    // Copies all equal fragment 0, whichever of them is the source: the rules below would take the others for
    // parity of a missing datum, which gives the same answer by a detour.
    let parity: Vec<(usize, u8)> =
        sources.iter().copied().enumerate().filter(|&(_, source)| !is_data(source)).collect();
    let missing: Vec<u8> = (0..scheme.data_u8()).filter(|column| !sources.contains(column)).collect();

    let block = parity
        .iter()
        .map(|&(_, row)| missing.iter().map(|&column| coefficient(scheme, row, column)).collect())
        .collect();
    let inverse = invert(block).expect("every square submatrix of a Cauchy matrix is invertible");

    // A missing datum is the inverse block applied to (parity minus what the present data contributed to it).
    let missing_row = |lost: usize| -> Vec<u8> {
        let mut row = vec![0; sources.len()];
        for (&(position, fragment), &weight) in parity.iter().zip(&inverse[lost]) {
            row[position] ^= weight;
            for (sum, &source) in row.iter_mut().zip(sources) {
                if is_data(source) {
                    *sum ^= field::multiply(weight, coefficient(scheme, fragment, source));
                }
            }
        }
        row
    };

    let rebuild_data = |column: u8| -> Vec<u8> {
        match missing.iter().position(|&lost| lost == column) {
            Some(lost) => missing_row(lost),
            None => sources.iter().map(|&source| u8::from(source == column)).collect(),
        }
    };

    // Each wanted parity fragment mixes every missing datum, so those rows are computed once for all of them.
    let missing_rows: Vec<Vec<u8>> = if wanted.iter().any(|&fragment| !is_data(fragment)) {
        (0..missing.len()).map(missing_row).collect()
    } else {
        Vec::new()
    };
    let rebuild_parity = |fragment: u8| -> Vec<u8> {
        let mut row: Vec<u8> = sources
            .iter()
            .map(|&source| if is_data(source) { coefficient(scheme, fragment, source) } else { 0 })
            .collect();
        for (&column, lost_row) in missing.iter().zip(&missing_rows) {
            let weight = coefficient(scheme, fragment, column);
            for (sum, &value) in row.iter_mut().zip(lost_row) {
                *sum ^= field::multiply(weight, value);
            }
        }
        row
    };

    wanted
        .iter()
        .map(|&fragment| if is_data(fragment) { rebuild_data(fragment) } else { rebuild_parity(fragment) })
        .collect()
}

/// The inverse of a square matrix by Gauss-Jordan elimination, or `None` when it has none.
fn invert(mut matrix: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let size = matrix.len();
    let mut inverse: Vec<Vec<u8>> =
        (0..size).map(|i| (0..size).map(|j| u8::from(i == j)).collect()).collect();
    for pivot in 0..size {
        let row = (pivot..size).find(|&row| matrix[row][pivot] != 0)?;
        matrix.swap(pivot, row);
        inverse.swap(pivot, row);

        let scale = field::inverse(matrix[pivot][pivot]);
        for value in matrix[pivot].iter_mut().chain(&mut inverse[pivot]) {
            *value = field::multiply(scale, *value);
        }
        for row in (0..size).filter(|&row| row != pivot) {
            let weight = matrix[row][pivot];
            for half in [&mut matrix, &mut inverse] {
                let [target, source] = half.get_disjoint_mut([row, pivot]).expect("row and pivot differ");
                for (sum, &value) in target.iter_mut().zip(source.iter()) {
                    *sum ^= field::multiply(weight, value);
                }
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::{coefficient, decode_rows, invert};
    use crate::field::multiply;
    use crate::scheme::Scheme;

    fn product(a: &[Vec<u8>], b: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let dot = |row: &[u8], column: usize| {
            row.iter().zip(b).fold(0, |sum, (&x, other)| sum ^ multiply(x, other[column]))
        };
        a.iter().map(|row| (0..b[0].len()).map(|column| dot(row, column)).collect()).collect()
    }

    fn generator(scheme: Scheme, fragments: &[u8]) -> Vec<Vec<u8>> {
        let row = |&fragment: &u8| {
            (0..scheme.data_u8()).map(|column| coefficient(scheme, fragment, column)).collect()
        };
        fragments.iter().map(row).collect()
    }

    #[test]
    fn generator_is_the_identity_above_reciprocals() {
        let scheme = Scheme::new(2, 4).unwrap();
        // 1/2 = 0x8E, 1/3 = 0xF4 under 0x11D.
        assert_eq!(generator(scheme, &[0, 1, 2, 3]), [[1, 0], [0, 1], [0x8E, 0xF4], [0xF4, 0x8E]]);
        assert_eq!(generator(Scheme::new(1, 3).unwrap(), &[0, 1, 2]), [[1], [1], [1]]);
    }

    #[test]
    fn inverse_times_matrix_is_the_identity() {
        let scheme = Scheme::new(100, 255).unwrap();
        let rows: Vec<u8> = (50..150).collect();
        let matrix = generator(scheme, &rows);
        let identity = generator(scheme, &(0..100).collect::<Vec<_>>());
        assert_eq!(product(&invert(matrix.clone()).unwrap(), &matrix), identity);
    }

    #[test]
    fn singular_matrix_has_no_inverse() {
        assert_eq!(invert(vec![vec![1, 2], vec![2, 4]]), None);
        assert_eq!(invert(vec![vec![0]]), None);
        assert_eq!(invert(Vec::new()), Some(Vec::new()));
    }

    #[test]
    fn decode_rows_equal_the_whole_inversion() {
        let scheme = Scheme::new(7, 15).unwrap();
        let all: Vec<u8> = (0..15).collect();
        for sources in [[0, 1, 2, 3, 4, 5, 6], [14, 2, 9, 0, 11, 6, 8], [8, 9, 10, 11, 12, 13, 14]] {
            let whole = product(&generator(scheme, &all), &invert(generator(scheme, &sources)).unwrap());
            assert_eq!(decode_rows(scheme, &sources, &all), whole);
        }
    }
}
