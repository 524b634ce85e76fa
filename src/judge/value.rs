//! Python's plain data, in the form of `marshal` (version 2), and when two values are equal.
//!
//! Judged code sends what it returns in this form. Only values of exactly the built-in types have it, so an object that
//! is equal to everything does not arrive. It is read here, whatever the bytes are, and written anew before a check
//! sees it: CPython's own reader is not made for hostile bytes.

use std::fmt;

/// Lists within lists, at most.
const DEPTH: usize = 100;
/// Bits of a digit of a large integer.
const DIGIT: u32 = 15;

/// A value of a built-in type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Ellipsis,
    Bool(bool),
    Int(i64),
    /// An integer that is no `i64`: whether it is negative, and its digits of 15 bits, the lowest first.
    Large(bool, Vec<u16>),
    Float(f64),
    Complex(f64, f64),
    /// UTF-8, but for lone surrogates.
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Tuple(Vec<Self>),
    List(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    Set(Vec<Self>),
    FrozenSet(Vec<Self>),
}

impl Value {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    /// Reads a value and nothing after it.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader { rest: bytes };
        let value = reader.value(DEPTH)?.ok_or("a value is missing")?;
        if reader.rest.is_empty() { Ok(value) } else { Err("bytes after the value") }
    }

    /// Appends the value's bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => out.push(b'N'),
            Self::Ellipsis => out.push(b'.'),
            Self::Bool(true) => out.push(b'T'),
            Self::Bool(false) => out.push(b'F'),
            Self::Int(n) => match i32::try_from(*n) {
                Ok(n) => {
                    out.push(b'i');
                    out.extend(n.to_le_bytes());
                }
                Err(_) => encode_large(*n < 0, &digits(n.unsigned_abs().into()), out),
            },
            Self::Large(negative, digits) => encode_large(*negative, digits, out),
            Self::Float(x) => {
                out.push(b'g');
                out.extend(x.to_le_bytes());
            }
            Self::Complex(re, im) => {
                out.push(b'y');
                out.extend(re.to_le_bytes());
                out.extend(im.to_le_bytes());
            }
            Self::Text(text) => encode_bytes(b'u', text, out),
            Self::Bytes(bytes) => encode_bytes(b's', bytes, out),
            Self::Tuple(values) => encode_all(b'(', values, out),
            Self::List(values) => encode_all(b'[', values, out),
            Self::Set(values) => encode_all(b'<', values, out),
            Self::FrozenSet(values) => encode_all(b'>', values, out),
            Self::Dict(pairs) => {
                out.push(b'{');
                for (key, value) in pairs {
                    key.encode(out);
                    value.encode(out);
                }
                out.push(b'0');
            }
        }
    }

    /// `bool(value)`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::None | Self::Bool(false) | Self::Int(0) => false,
            Self::Float(x) => *x != 0.0,
            Self::Complex(re, im) => *re != 0.0 || *im != 0.0,
            Self::Text(bytes) | Self::Bytes(bytes) => !bytes.is_empty(),
            Self::Tuple(all) | Self::List(all) | Self::Set(all) | Self::FrozenSet(all) => {
                !all.is_empty()
            }
            Self::Dict(pairs) => !pairs.is_empty(),
            Self::Ellipsis | Self::Bool(true) | Self::Int(_) | Self::Large(..) => true,
        }
    }

    /// A real number as the nearest `f64`.
    pub(super) fn number(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "the nearest is wanted")]
        match self {
            Self::Bool(b) => Some(f64::from(u8::from(*b))),
            Self::Int(n) => Some(*n as f64),
            Self::Large(negative, digits) => {
                let base = f64::from(1_u32 << DIGIT);
                let size =
                    digits.iter().rev().fold(0.0, |sum, digit| sum * base + f64::from(*digit));
                Some(if *negative { -size } else { size })
            }
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// Whether Python's `==` holds between the two.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let all = |a: &[Self], b: &[Self]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b))
        };
        match (self, other) {
            (Self::None, Self::None) | (Self::Ellipsis, Self::Ellipsis) => true,
            (Self::Text(a), Self::Text(b)) | (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Tuple(a), Self::Tuple(b)) | (Self::List(a), Self::List(b)) => all(a, b),
            (Self::Set(a) | Self::FrozenSet(a), Self::Set(b) | Self::FrozenSet(b)) => {
                a.len() == b.len() && a.iter().all(|a| b.iter().any(|b| a.equals(b)))
            }
            (Self::Dict(a), Self::Dict(b)) => {
                let has = |(key, value): &(Self, Self)| {
                    let found = b.iter().find(|(other, _)| key.equals(other));
                    found.is_some_and(|(_, other)| value.equals(other))
                };
                a.len() == b.len() && a.iter().all(has)
            }
            _ => self.equals_as_number(other),
        }
    }

    fn equals_as_number(&self, other: &Self) -> bool {
        match (self.integer(), other.integer()) {
            (Some(a), Some(b)) => a == b,
            (None, Some(_)) => other.equals_as_number(self),
            // An integer and a float are compared exactly, not as two floats.
            (Some(integer), None) => other
                .complex()
                .is_some_and(|(re, im)| same(im, 0.0) && integer_of(re) == Some(integer)),
            (None, None) => {
                let parts = self.complex().zip(other.complex());
                parts.is_some_and(|(a, b)| same(a.0, b.0) && same(a.1, b.1))
            }
        }
    }

    /// An integer's sign and digits, without leading zeros.
    fn integer(&self) -> Option<(bool, Vec<u16>)> {
        match self {
            Self::Bool(b) => Some((false, digits(u128::from(*b)))),
            Self::Int(n) => Some((*n < 0, digits(n.unsigned_abs().into()))),
            Self::Large(negative, digits) => Some((*negative, digits.clone())),
            _ => None,
        }
    }

    fn complex(&self) -> Option<(f64, f64)> {
        match self {
            Self::Complex(re, im) => Some((*re, *im)),
            _ => self.number().map(|x| (x, 0.0)),
        }
    }
}

#[expect(clippy::float_cmp, reason = "as Python does")]
fn same(a: f64, b: f64) -> bool {
    a == b
}

/// The integer that a float is, if it is one.
fn integer_of(x: f64) -> Option<(bool, Vec<u16>)> {
    if !x.is_finite() || x.fract() != 0.0 {
        return None;
    }
    let bits = x.abs().to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    if exponent < 1023 {
        return Some((false, Vec::new()));
    }
    let (mantissa, shift) = (u128::from(fraction | 1 << 52), exponent - 1023);
    if shift <= 52 {
        return Some((x < 0.0, digits(mantissa >> (52 - shift))));
    }
    let (whole, bits) = ((shift - 52) / u64::from(DIGIT), (shift - 52) % u64::from(DIGIT));
    let mut found = vec![0; usize::try_from(whole).ok()?];
    found.extend(digits(mantissa << bits));
    Some((x < 0.0, found))
}

/// Digits of 15 bits, the lowest first.
fn digits(mut n: u128) -> Vec<u16> {
    let mut digits = Vec::new();
    while n > 0 {
        digits.push((n & 0x7fff) as u16);
        n >>= DIGIT;
    }
    digits
}

fn encode_length(n: usize, out: &mut Vec<u8>) {
    out.extend(u32::try_from(n).expect("frames are smaller").to_le_bytes());
}

fn encode_large(negative: bool, digits: &[u16], out: &mut Vec<u8>) {
    out.push(b'l');
    let n = i32::try_from(digits.len()).expect("frames are smaller");
    out.extend((if negative { -n } else { n }).to_le_bytes());
    out.extend(digits.iter().flat_map(|digit| digit.to_le_bytes()));
}

fn encode_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    encode_length(bytes.len(), out);
    out.extend(bytes);
}

fn encode_all(kind: u8, values: &[Value], out: &mut Vec<u8>) {
    out.push(kind);
    encode_length(values.len(), out);
    for value in values {
        value.encode(out);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next value; `None` for the mark that ends a dictionary.
    fn value(&mut self, depth: usize) -> Result<Option<Value>, &'static str> {
        let below = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        Ok(Some(match self.take::<1>()?[0] {
            b'0' => return Ok(None),
            b'N' => Value::None,
            b'.' => Value::Ellipsis,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'i' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            b'l' => self.large()?,
            b'g' => Value::Float(f64::from_le_bytes(self.take()?)),
            b'y' => {
                Value::Complex(f64::from_le_bytes(self.take()?), f64::from_le_bytes(self.take()?))
            }
            b'u' | b't' => Value::Text(self.bytes()?),
            b's' => Value::Bytes(self.bytes()?),
            b'(' => Value::Tuple(self.values(below)?),
            b'[' => Value::List(self.values(below)?),
            b'<' => Value::Set(self.values(below)?),
            b'>' => Value::FrozenSet(self.values(below)?),
            b'{' => Value::Dict(self.pairs(below)?),
            _ => return Err("a value of no plain type"),
        }))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("it ends too early")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn slice(&mut self, n: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, &'static str> {
        let n = u32::from_le_bytes(self.take()?) as usize;
        // Every part has a byte at least: nobody makes us set aside more than there is.
        if n > self.rest.len() { Err("it ends too early") } else { Ok(n) }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, &'static str> {
        let n = self.length()?;
        Ok(self.slice(n)?.to_vec())
    }

    fn values(&mut self, depth: usize) -> Result<Vec<Value>, &'static str> {
        let n = self.length()?;
        (0..n).map(|_| self.value(depth)?.ok_or("a value is missing")).collect()
    }

    fn pairs(&mut self, depth: usize) -> Result<Vec<(Value, Value)>, &'static str> {
        let mut pairs = Vec::new();
        while let Some(key) = self.value(depth)? {
            pairs.push((key, self.value(depth)?.ok_or("a value is missing")?));
        }
        Ok(pairs)
    }

    fn large(&mut self) -> Result<Value, &'static str> {
        let n = i32::from_le_bytes(self.take()?);
        let n_digits = n.unsigned_abs() as usize;
        if n_digits > self.rest.len() / 2 {
            return Err("it ends too early");
        }
        let bytes = self.slice(2 * n_digits)?.as_chunks::<2>().0;
        let mut digits: Vec<u16> = bytes.iter().map(|digit| u16::from_le_bytes(*digit)).collect();
        if digits.iter().any(|digit| *digit >= 1 << DIGIT) {
            return Err("a digit is too large");
        }
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Ok(small(n < 0, &digits).map_or(Value::Large(n < 0, digits), Value::Int))
    }
}

/// The integer of these digits, if it is an `i64`.
fn small(negative: bool, digits: &[u16]) -> Option<i64> {
    if digits.len() > 5 {
        return None;
    }
    let size = digits.iter().rev().fold(0_i128, |sum, digit| sum << DIGIT | i128::from(*digit));
    i64::try_from(if negative { -size } else { size }).ok()
}

impl fmt::Display for Value {
    /// About as Python's `repr`; large integers are not written out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |f: &mut fmt::Formatter<'_>, open: &str, values: &[Self], close: &str| {
            f.write_str(open)?;
            for (i, value) in values.iter().enumerate() {
                write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str(close)
        };
        match self {
            Self::None => f.write_str("None"),
            Self::Ellipsis => f.write_str("..."),
            Self::Bool(b) => f.write_str(if *b { "True" } else { "False" }),
            Self::Int(n) => write!(f, "{n}"),
            Self::Large(..) => write!(f, "{:e}", self.number().unwrap_or(f64::NAN)),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Complex(re, im) => write!(f, "({re:?}+{im:?}j)"),
            Self::Text(text) => write!(f, "{:?}", String::from_utf8_lossy(text)),
            Self::Bytes(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
            Self::Tuple(values) if values.len() == 1 => write!(f, "({},)", values[0]),
            Self::Tuple(values) => all(f, "(", values, ")"),
            Self::List(values) => all(f, "[", values, "]"),
            Self::Set(values) => all(f, "{", values, "}"),
            Self::FrozenSet(values) => all(f, "frozenset({", values, "})"),
            Self::Dict(pairs) => {
                f.write_str("{")?;
                for (i, (key, value)) in pairs.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(value: &Value) -> Value {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        Value::decode(&bytes).unwrap()
    }

    fn int(text: &str) -> Value {
        let negative = text.starts_with('-');
        Value::Large(negative, digits(text.trim_start_matches('-').parse().unwrap()))
    }

    #[test]
    fn equality_is_python_s() {
        use Value::Bool;
        use Value::Complex;
        use Value::Dict;
        use Value::Float;
        use Value::Int;
        use Value::List;
        use Value::Set;
        use Value::Tuple;
        let one = || vec![Int(1)];
        let equal = [
            (Int(1), Bool(true)),
            (Int(1), Float(1.0)),
            (Float(0.0), Float(-0.0)),
            (Int(0), Float(-0.0)),
            (Complex(2.0, 0.0), Int(2)),
            (int("36893488147419103232"), Float(36_893_488_147_419_103_232.0)),
            (int("-9223372036854775808"), Int(i64::MIN)),
            (Set(vec![Int(1), Int(2)]), Value::FrozenSet(vec![Float(2.0), Int(1)])),
            (
                Dict(vec![(Int(1), Value::None), (Value::text("a"), Int(2))]),
                Dict(vec![(Value::text("a"), Int(2)), (Bool(true), Value::None)]),
            ),
        ];
        for (a, b) in equal {
            let (a, b) = (back(&a), back(&b));
            assert!(a.equals(&b) && b.equals(&a), "{a} {b}");
        }
        let different = [
            (Float(f64::NAN), Float(f64::NAN)),
            (List(one()), Tuple(one())),
            (List(one()), Set(one())),
            (Value::text("1"), Int(1)),
            (Value::text("a"), Value::Bytes(b"a".to_vec())),
            (Value::None, Bool(false)),
            (Int(9_007_199_254_740_993), Float(9_007_199_254_740_992.0)),
            (int("36893488147419103233"), Float(36_893_488_147_419_103_232.0)),
            (Int(-1), Int(1)),
            (Dict(vec![(Int(1), Int(1))]), Dict(vec![(Int(1), Int(2))])),
            (Complex(1.0, 1.0), Int(1)),
        ];
        for (a, b) in different {
            let (a, b) = (back(&a), back(&b));
            assert!(!a.equals(&b) && !b.equals(&a), "{a} {b}");
        }
    }

    #[test]
    fn hostile_bytes_are_errors() {
        let nested: Vec<u8> = [b'[', 1, 0, 0, 0].repeat(200);
        let cases: [&[u8]; 9] = [
            b"",
            b"0",
            b"NN",
            b"[\xff\xff\xff\xff",
            b"u\xff\xff\xff\x7f",
            b"l\xff\xff\xff\x7f\0",
            b"l\x01\0\0\0\xff\xff",
            b"c\0\0\0\0",
            &nested,
        ];
        for bytes in cases {
            assert!(Value::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = Value::decode(&bytes) {
                let again = back(&value);
                prop_assert_eq!(format!("{value:?}"), format!("{again:?}"));
            }
        }
    }
}
