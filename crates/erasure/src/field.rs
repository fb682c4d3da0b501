//! GF(2^8) with the polynomial 0x11D: the arithmetic of bytes under the code, as tables.
//!
//! The polynomial is ISA-L's (and that of most Reed-Solomon storage codes; J. Plank, "A Tutorial on Reed-Solomon
//! Coding for Fault-Tolerance in RAID-like Systems", 1997), so it is part of the stored format. All tables are
//! computed by the compiler from that one number. Each kernel's table form is here too: what the field is
//! belongs in one file, how fast it goes belongs to the kernels.
//!
//! Addition is exclusive or and has no name here.

/// x^8 + x^4 + x^3 + x^2 + 1 without its top bit, which reduction removes.
const POLYNOMIAL_LOW: u8 = 0x1D;

/// `PRODUCTS[a][b]` is a * b. The scalar kernel walks one row of it per coefficient.
pub(crate) static PRODUCTS: [[u8; 256]; 256] = products();

static INVERSES: [u8; 256] = inverses();

/// `NIBBLES[c]` holds c * i for i in 0..16, then c * (i << 4): two shuffles of 16 entries multiply a byte
/// (Plank, Greenan and Miller, "Screaming Fast Galois Field Arithmetic Using Intel SIMD Instructions", 2013).
pub(crate) static NIBBLES: [[u8; 32]; 256] = nibbles();

/// `AFFINE[c]` is multiplication by c as the 8 x 8 bit matrix that `GF2P8AFFINEQB` takes. The instruction set's
/// own multiplication, `GF2P8MULB`, is fixed to the AES polynomial 0x11B and therefore useless here.
pub(crate) static AFFINE: [u64; 256] = affine();

/// The product of two field elements.
pub(crate) fn multiply(a: u8, b: u8) -> u8 {
    PRODUCTS[usize::from(a)][usize::from(b)]
}

/// The multiplicative inverse; 0 for 0, as ISA-L's `gf_inv` has it.
pub(crate) fn inverse(a: u8) -> u8 {
    INVERSES[usize::from(a)]
}

/// Each product is the sum of two that are known already, because the naive bit loop over 65,536 products would
/// exceed the compiler's budget for constants. The tests compare with that loop.
const fn products() -> [[u8; 256]; 256] {
    let mut table = [[0; 256]; 256];
    let mut a: u8 = 0;
    loop {
        let row = &mut table[a as usize];
        let mut power = a;
        let mut b = 1;
        while b < 256 {
            let low_bits = b & (b - 1);
            if low_bits == 0 {
                row[b] = power;
                power = double(power);
            } else {
                row[b] = row[low_bits] ^ row[b ^ low_bits];
            }
            b += 1;
        }
        if a == u8::MAX {
            return table;
        }
        a += 1;
    }
}

const fn double(a: u8) -> u8 {
    (a << 1) ^ (if a & 0x80 == 0 { 0 } else { POLYNOMIAL_LOW })
}

const fn inverses() -> [u8; 256] {
    let mut table = [0; 256];
    let mut a: u8 = 1;
    loop {
        let mut b = 1;
        while PRODUCTS[b][a as usize] != 1 {
            b += 1;
        }
        table[b] = a;
        if a == u8::MAX {
            return table;
        }
        a += 1;
    }
}

const fn nibbles() -> [[u8; 32]; 256] {
    let mut table = [[0; 32]; 256];
    let mut c = 0;
    while c < 256 {
        let mut i = 0;
        while i < 16 {
            table[c][i] = PRODUCTS[c][i];
            table[c][16 + i] = PRODUCTS[c][i << 4];
            i += 1;
        }
        c += 1;
    }
    table
}

/// The instruction takes output bit `i` as the parity of (byte `7 - i` of the matrix AND the input byte). Bit `j`
/// of that matrix byte must therefore be bit `i` of c * 2^j.
const fn affine() -> [u64; 256] {
    let mut table = [0; 256];
    let mut c = 0;
    while c < 256 {
        let mut i = 0;
        while i < 8 {
            let mut j = 0;
            while j < 8 {
                let bit = (PRODUCTS[c][1 << j] >> i) & 1;
                table[c] |= (bit as u64) << (8 * (7 - i) + j);
                j += 1;
            }
            i += 1;
        }
        c += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{AFFINE, NIBBLES, inverse, multiply};

    /// Polynomial multiplication, then long division by 0x11D: the definition, sharing nothing with the tables.
    fn multiply_naively(a: u8, b: u8) -> u8 {
        let mut product: u16 = 0;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11D << (bit - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn tables_agree_with_the_definition_for_every_pair() {
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                let expected = multiply_naively(a, b);
                assert_eq!(multiply(a, b), expected, "{a} * {b}");

                let table = &NIBBLES[usize::from(a)];
                let by_nibbles = table[usize::from(b & 15)] ^ table[16 + usize::from(b >> 4)];
                assert_eq!(by_nibbles, expected, "nibbles of {a} * {b}");

                let rows = AFFINE[usize::from(a)].to_be_bytes();
                let by_bits = (0..8).fold(0, |byte, i| {
                    let parity = (rows[i] & b).count_ones() & 1;
                    byte | u8::from(parity == 1) << i
                });
                assert_eq!(by_bits, expected, "bit matrix of {a} * {b}");
            }
        }
    }

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        assert_eq!(inverse(0), 0);
        for a in 1..=u8::MAX {
            assert_eq!(multiply_naively(a, inverse(a)), 1, "{a}");
        }
    }

    #[test]
    fn two_generates_the_field() {
        let mut seen = [false; 256];
        let mut power = 1;
        for _ in 0..255 {
            assert!(!std::mem::replace(&mut seen[usize::from(power)], true));
            power = multiply(power, 2);
        }
        assert_eq!(power, 1);
    }
}
