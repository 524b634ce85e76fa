//! Python's plain data: its encoding (`marshal`, version 2; `Python/marshal.c` in CPython) and its
//! equality.
//!
//! Judged code sends its results in this encoding. It exists only for values of exactly the
//! built-in types, so an object that claims to equal everything cannot be sent. Values are decoded
//! here and encoded again before a check sees them, because CPython's own reader is not safe for
//! hostile bytes.
//!
//! Decoding and comparing take time proportional to the size of the values. Keys of dictionaries
//! and items of sets are matched by fingerprints: hashes that equal keys share, made with a random
//! secret so that nobody can provoke collisions.

use std::borrow::Cow;
use std::fmt;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::hash::RandomState;
use std::sync::LazyLock;

/// Maximum nesting depth, about as deep as CPython can compare lists. Every recursive function in
/// this file fits that many times into the stack of a thread.
const DEPTH: usize = 1000;
/// Bits per digit of a large integer (`PyLong_MARSHAL_SHIFT`).
const DIGIT: u32 = 15;

/// A value of a built-in type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PlainValue {
    None,
    Ellipsis,
    Bool(bool),
    Int(i64),
    /// An integer outside of `i64`: whether it is negative, and its digits of 15 bits, lowest
    /// first.
    Large(bool, Vec<u16>),
    Float(f64),
    Complex(f64, f64),
    /// UTF-8, except for lone surrogates.
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Tuple(Vec<Self>),
    List(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    Set(Vec<Self>),
    FrozenSet(Vec<Self>),
}

impl PlainValue {
    /// Creates a text value.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    /// Decodes a value that takes all of `bytes`.
    ///
    /// # Errors
    /// A description of the first defect.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = ValueReader { rest: bytes };
        let value = reader.value(DEPTH)?;
        if reader.rest.is_empty() { Ok(value) } else { Err("bytes after the value") }
    }

    /// Appends the encoded value to `out`.
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
            // Sets keep the order in which they arrived, which CPython does not care about.
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

    /// Python's truth value, `bool(value)`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::None | Self::Bool(false) | Self::Int(0) => false,
            Self::Float(x) => *x != 0.0,
            Self::Complex(re, im) => *re != 0.0 || *im != 0.0,
            Self::Text(bytes) | Self::Bytes(bytes) => !bytes.is_empty(),
            Self::Tuple(items) | Self::List(items) | Self::Set(items) | Self::FrozenSet(items) => {
                !items.is_empty()
            }
            Self::Dict(pairs) => !pairs.is_empty(),
            Self::Ellipsis | Self::Bool(true) | Self::Int(_) | Self::Large(..) => true,
        }
    }

    /// Converts a real number to the nearest `f64`; `None` for other values.
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

    /// Python's `==`. As in Python, NaN equals nothing.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) | (Self::Ellipsis, Self::Ellipsis) => true,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => same(*a, *b),
            (Self::Text(a), Self::Text(b)) | (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Tuple(a), Self::Tuple(b)) | (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b))
            }
            (Self::Set(a) | Self::FrozenSet(a), Self::Set(b) | Self::FrozenSet(b)) => {
                a.len() == b.len() && equal_sets(a, b)
            }
            (Self::Dict(a), Self::Dict(b)) => a.len() == b.len() && equal_dicts(a, b),
            // Numbers of different types, or values of types that are never equal.
            _ => self.number_key().is_some_and(|key| other.number_key() == Some(key)),
        }
    }

    /// A hash that equal keys share; `None` for a value that equals nothing or cannot be a key.
    fn fingerprint(&self) -> Option<ValueFingerprint> {
        // The numbers only separate types whose values are never equal.
        match self {
            Self::None => Some(fingerprint_of(0, &())),
            Self::Ellipsis => Some(fingerprint_of(1, &())),
            Self::Text(text) => Some(fingerprint_of(2, text)),
            Self::Bytes(bytes) => Some(fingerprint_of(3, bytes)),
            Self::Tuple(values) => of_tuple(values.iter().map(Self::fingerprint)),
            Self::FrozenSet(values) => of_set(values.iter().map(Self::fingerprint)),
            Self::List(_) | Self::Dict(_) | Self::Set(_) => None,
            number => number.number_key().map(|key| fingerprint_of(4, &key)),
        }
    }

    /// The canonical form that equal numbers share; `None` for NaN and for other values.
    fn number_key(&self) -> Option<NumberKey<'_>> {
        match self {
            Self::Bool(b) => Some(NumberKey::Small(i64::from(*b))),
            Self::Int(n) => Some(NumberKey::Small(*n)),
            Self::Large(negative, digits) => Some(NumberKey::Large(*negative, digits.into())),
            Self::Float(x) => NumberKey::of_float(*x),
            Self::Complex(re, im) if same(*im, 0.0) => NumberKey::of_float(*re),
            Self::Complex(re, im) if re.is_nan() || im.is_nan() => None,
            // Adding zero makes -0.0 positive.
            Self::Complex(re, im) => Some(NumberKey::Complex((re + 0.0).to_bits(), im.to_bits())),
            _ => None,
        }
    }

    /// The encoded value. Equal values may have different bytes, such as `1` and `True`.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    /// A text without quotes; any other value as formatted by [`fmt::Display`].
    pub(super) fn words(&self) -> String {
        match self {
            Self::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => other.to_string(),
        }
    }
}

/// A keyed hash of a value; see [`PlainValue::fingerprint`].
type ValueFingerprint = u64;

/// A number in canonical form: an integer is compared with a float exactly, not after conversion to
/// a float.
#[derive(Debug, PartialEq, Hash)]
enum NumberKey<'a> {
    Small(i64),
    Large(bool, Cow<'a, [u16]>),
    /// The bits of a float without an integer value.
    Real(u64),
    Complex(u64, u64),
}

impl NumberKey<'_> {
    fn of_float(x: f64) -> Option<Self> {
        if x.is_nan() {
            return None;
        }
        let Some((negative, digits)) = integer_of(x) else { return Some(Self::Real(x.to_bits())) };
        Some(match small(negative, &digits) {
            Some(n) => Self::Small(n),
            None => Self::Large(negative, digits.into()),
        })
    }
}

/// The random secret of this process for fingerprints.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn fingerprint_of(kind: u8, value: &impl Hash) -> ValueFingerprint {
    SECRET.hash_one((kind, value))
}

fn of_tuple(items: impl Iterator<Item = Option<ValueFingerprint>>) -> Option<ValueFingerprint> {
    let mut hasher = SECRET.build_hasher();
    hasher.write_u8(5);
    for item in items {
        hasher.write_u64(item?);
    }
    Some(hasher.finish())
}

/// Combines the fingerprints of a set's items, in any order.
fn of_set(items: impl Iterator<Item = Option<ValueFingerprint>>) -> Option<ValueFingerprint> {
    // A sum and not an exclusive or, under which pairs of equal terms would cancel out.
    let mut sum = 0_u64;
    for item in items {
        sum = sum.wrapping_add(item?);
    }
    Some(fingerprint_of(6, &sum))
}

#[expect(clippy::float_cmp, reason = "as Python does")]
fn same(a: f64, b: f64) -> bool {
    a == b
}

/// Sorts the fingerprints of keys, each with the index of its key; `None` if a key equals nothing.
fn sorted<'a>(
    keys: impl Iterator<Item = &'a PlainValue>,
) -> Option<Vec<(ValueFingerprint, usize)>> {
    let with_index = |(index, key): (usize, &PlainValue)| Some((key.fingerprint()?, index));
    let mut keys = keys.enumerate().map(with_index).collect::<Option<Vec<_>>>()?;
    keys.sort_unstable();
    Some(keys)
}

/// Matches keys of `a` and `b` by fingerprint: pairs of their indices, or `None` if a key has no
/// match.
fn pairs_of<'a>(
    a: impl Iterator<Item = &'a PlainValue>,
    b: impl Iterator<Item = &'a PlainValue>,
) -> Option<Vec<(usize, usize)>> {
    // Keys of one container are distinct (see `distinct`), so after sorting they match one to one.
    let both = sorted(a)?.into_iter().zip(sorted(b)?);
    both.map(|((a, i), (b, k))| (a == b).then_some((i, k))).collect()
}

/// Whether two sets of the same size have equal items.
fn equal_sets(a: &[PlainValue], b: &[PlainValue]) -> bool {
    pairs_of(a.iter(), b.iter())
        .is_some_and(|pairs| pairs.iter().all(|(i, k)| a[*i].equals(&b[*k])))
}

/// Whether two dictionaries of the same size have equal values under equal keys.
fn equal_dicts(a: &[(PlainValue, PlainValue)], b: &[(PlainValue, PlainValue)]) -> bool {
    fn keys(pairs: &[(PlainValue, PlainValue)]) -> impl Iterator<Item = &PlainValue> {
        pairs.iter().map(|(key, _)| key)
    }
    let same = |(i, k): &(usize, usize)| a[*i].0.equals(&b[*k].0) && a[*i].1.equals(&b[*k].1);
    pairs_of(keys(a), keys(b)).is_some_and(|pairs| pairs.iter().all(same))
}

/// Converts a float with an integer value to sign and digits, exactly.
fn integer_of(x: f64) -> Option<(bool, Vec<u16>)> {
    if !x.is_finite() || x.fract() != 0.0 {
        return None;
    }
    // IEEE 754: the value is 1.fraction * 2^(exponent - 1023).
    let bits = x.abs().to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    if exponent < 1023 {
        return Some((false, Vec::new())); // below 1, so it is 0.0 or -0.0
    }
    let (mantissa, shift) = (u128::from(fraction | 1 << 52), exponent - 1023);
    if shift <= 52 {
        return Some((x < 0.0, digits(mantissa >> (52 - shift))));
    }
    // Shift left by whole digits, which are zeros at the low end, and by the remaining bits.
    let (whole, bits) = ((shift - 52) / u64::from(DIGIT), (shift - 52) % u64::from(DIGIT));
    let mut found = vec![0; usize::try_from(whole).ok()?];
    found.extend(digits(mantissa << bits));
    Some((x < 0.0, found))
}

/// Splits `n` into digits of 15 bits, lowest first.
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
    // The sign of the number is that of its count of digits.
    let n = i32::try_from(digits.len()).expect("frames are smaller");
    out.extend((if negative { -n } else { n }).to_le_bytes());
    out.extend(digits.iter().flat_map(|digit| digit.to_le_bytes()));
}

fn encode_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    encode_length(bytes.len(), out);
    out.extend(bytes);
}

fn encode_all(kind: u8, values: &[PlainValue], out: &mut Vec<u8>) {
    out.push(kind);
    encode_length(values.len(), out);
    for value in values {
        value.encode(out);
    }
}

/// The tag that ends a dictionary (`TYPE_NULL`).
const END: u8 = b'0';

/// A key with its fingerprint.
type FoundKey = (PlainValue, Option<ValueFingerprint>);

/// Rejects equal keys. Python never sends them, but a forged set `{1, 1}` would have the size of
/// `{1, 2}`, and comparison relies on sizes.
fn distinct(prints: Vec<Option<ValueFingerprint>>) -> Result<(), &'static str> {
    let mut prints: Vec<ValueFingerprint> = prints.into_iter().flatten().collect();
    prints.sort_unstable();
    let is_double = prints.windows(2).any(|pair| pair[0] == pair[1]);
    if is_double { Err("a set or dictionary with a duplicate entry") } else { Ok(()) }
}

struct ValueReader<'a> {
    rest: &'a [u8],
}

impl<'a> ValueReader<'a> {
    /// Decodes the next value, which may be nested `depth` levels deep.
    fn value(&mut self, depth: usize) -> Result<PlainValue, &'static str> {
        let tag = self.tag()?;
        let below = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        match tag {
            b'(' => Ok(PlainValue::Tuple(self.values(below)?)),
            b'[' => Ok(PlainValue::List(self.values(below)?)),
            b'<' => Ok(PlainValue::Set(self.items(below)?)),
            b'>' => Ok(PlainValue::FrozenSet(self.items(below)?)),
            b'{' => Ok(PlainValue::Dict(self.pairs(below)?)),
            _ => self.scalar(tag),
        }
    }

    /// Decodes a value that contains no other values.
    fn scalar(&mut self, tag: u8) -> Result<PlainValue, &'static str> {
        Ok(match tag {
            b'N' => PlainValue::None,
            b'.' => PlainValue::Ellipsis,
            b'T' => PlainValue::Bool(true),
            b'F' => PlainValue::Bool(false),
            b'i' => PlainValue::Int(i32::from_le_bytes(self.take()?).into()),
            b'l' => self.large()?,
            b'g' => PlainValue::Float(f64::from_le_bytes(self.take()?)),
            b'y' => PlainValue::Complex(
                f64::from_le_bytes(self.take()?),
                f64::from_le_bytes(self.take()?),
            ),
            b'u' | b't' => PlainValue::Text(self.bytes()?),
            b's' => PlainValue::Bytes(self.bytes()?),
            END => return Err("a value is missing"),
            _ => return Err("a value that is not plain data"),
        })
    }

    /// Decodes a key that starts with `tag`, together with its fingerprint. Both are built bottom
    /// up, so that each part of a nested key is hashed only once.
    fn key(&mut self, tag: u8, depth: usize) -> Result<FoundKey, &'static str> {
        let below = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        match tag {
            b'(' => {
                let (values, prints) = self.keys(below)?;
                Ok((PlainValue::Tuple(values), of_tuple(prints.into_iter())))
            }
            b'>' => {
                let (values, prints) = self.keys(below)?;
                let print = of_set(prints.iter().copied());
                distinct(prints)?;
                Ok((PlainValue::FrozenSet(values), print))
            }
            b'[' | b'<' | b'{' => Err("an unhashable key or item of a set"),
            _ => {
                let value = self.scalar(tag)?;
                let print = value.fingerprint();
                Ok((value, print))
            }
        }
    }

    fn keys(
        &mut self,
        depth: usize,
    ) -> Result<(Vec<PlainValue>, Vec<Option<ValueFingerprint>>), &'static str> {
        let n = self.length()?;
        let mut next = || {
            let tag = self.tag()?;
            self.key(tag, depth)
        };
        (0..n).map(|_| next()).collect()
    }

    /// Decodes the items of a set.
    fn items(&mut self, depth: usize) -> Result<Vec<PlainValue>, &'static str> {
        let (items, prints) = self.keys(depth)?;
        distinct(prints)?;
        Ok(items)
    }

    fn tag(&mut self) -> Result<u8, &'static str> {
        Ok(self.take::<1>()?[0])
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
        // Every item takes at least one byte, so a forged length cannot make us allocate more
        // memory than was sent.
        if n > self.rest.len() { Err("it ends too early") } else { Ok(n) }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, &'static str> {
        let n = self.length()?;
        Ok(self.slice(n)?.to_vec())
    }

    fn values(&mut self, depth: usize) -> Result<Vec<PlainValue>, &'static str> {
        let n = self.length()?;
        (0..n).map(|_| self.value(depth)).collect()
    }

    fn pairs(&mut self, depth: usize) -> Result<Vec<(PlainValue, PlainValue)>, &'static str> {
        let (mut pairs, mut prints) = (Vec::new(), Vec::new());
        loop {
            let tag = self.tag()?;
            if tag == END {
                break;
            }
            let (key, print) = self.key(tag, depth)?;
            pairs.push((key, self.value(depth)?));
            prints.push(print);
        }
        distinct(prints)?;
        Ok(pairs)
    }

    fn large(&mut self) -> Result<PlainValue, &'static str> {
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
        // Leading zeros would make equal numbers differ.
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Ok(small(n < 0, &digits).map_or(PlainValue::Large(n < 0, digits), PlainValue::Int))
    }
}

/// Combines digits to an integer, if it fits into `i64`.
fn small(negative: bool, digits: &[u16]) -> Option<i64> {
    // Five digits have 75 bits, which an `i128` holds.
    if digits.len() > 5 {
        return None;
    }
    let size = digits.iter().rev().fold(0_i128, |sum, digit| sum << DIGIT | i128::from(*digit));
    i64::try_from(if negative { -size } else { size }).ok()
}

impl fmt::Display for PlainValue {
    /// Formats the value approximately as Python's `repr`; large integers are abbreviated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = |f: &mut fmt::Formatter<'_>, open: &str, values: &[Self], close: &str| {
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
            Self::Tuple(values) => items(f, "(", values, ")"),
            Self::List(values) => items(f, "[", values, "]"),
            Self::Set(values) => items(f, "{", values, "}"),
            Self::FrozenSet(values) => items(f, "frozenset({", values, "})"),
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
    use std::time::Duration;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn back(value: &PlainValue) -> PlainValue {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        PlainValue::decode(&bytes).unwrap()
    }

    fn int(text: &str) -> PlainValue {
        let negative = text.starts_with('-');
        PlainValue::Large(negative, digits(text.trim_start_matches('-').parse().unwrap()))
    }

    #[test]
    fn equality_is_that_of_python() {
        use PlainValue::Bool;
        use PlainValue::Complex;
        use PlainValue::Dict;
        use PlainValue::Float;
        use PlainValue::Int;
        use PlainValue::List;
        use PlainValue::Set;
        use PlainValue::Tuple;
        let one = || vec![Int(1)];
        let equal = [
            (Int(1), Bool(true)),
            (Int(1), Float(1.0)),
            (Float(0.0), Float(-0.0)),
            (Int(0), Float(-0.0)),
            (Complex(2.0, 0.0), Int(2)),
            (int("36893488147419103232"), Float(36_893_488_147_419_103_232.0)),
            (int("-9223372036854775808"), Int(i64::MIN)),
            (Set(vec![Int(1), Int(2)]), PlainValue::FrozenSet(vec![Float(2.0), Int(1)])),
            (
                Dict(vec![(Int(1), PlainValue::None), (PlainValue::text("a"), Int(2))]),
                Dict(vec![(PlainValue::text("a"), Int(2)), (Bool(true), PlainValue::None)]),
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
            (PlainValue::text("1"), Int(1)),
            (PlainValue::text("a"), PlainValue::Bytes(b"a".to_vec())),
            (PlainValue::None, Bool(false)),
            (Int(9_007_199_254_740_993), Float(9_007_199_254_740_992.0)),
            (int("36893488147419103233"), Float(36_893_488_147_419_103_232.0)),
            (Int(-1), Int(1)),
            (Dict(vec![(Int(1), Int(1))]), Dict(vec![(Int(1), Int(2))])),
            (Complex(1.0, 1.0), Int(1)),
            (Set(vec![Float(f64::NAN)]), Set(vec![Float(f64::NAN)])),
            (Set(vec![Int(1), Int(2)]), Set(vec![Int(1), Int(3)])),
            (Dict(vec![(Int(1), Int(1))]), Dict(vec![(Int(2), Int(1))])),
        ];
        for (a, b) in different {
            let (a, b) = (back(&a), back(&b));
            assert!(!a.equals(&b) && !b.equals(&a), "{a} {b}");
        }
    }

    #[test]
    fn hostile_bytes_are_errors() {
        let nested: Vec<u8> = [b'[', 1, 0, 0, 0].repeat(2000);
        let cases: [&[u8]; 16] = [
            b"",
            b"0",
            b"NN",
            b"[\xff\xff\xff\xff",
            b"u\xff\xff\xff\x7f",
            b"l\xff\xff\xff\x7f\0",
            b"l\x01\0\0\0\xff\xff",
            b"c\0\0\0\0",
            &nested,
            // {1, 1}, {1, True}, {0.0: None, -0.0: None}, {frozenset({1, 2}), frozenset({2, 1})},
            // {((),), ((),)}.
            b"<\x02\0\0\0i\x01\0\0\0i\x01\0\0\0",
            b"<\x02\0\0\0Ti\x01\0\0\0",
            b"{g\0\0\0\0\0\0\0\0Ng\0\0\0\0\0\0\0\x80N0",
            b"<\x02\0\0\0>\x02\0\0\0TF>\x02\0\0\0FT",
            b"<\x02\0\0\0(\x01\0\0\0(\0\0\0\0(\x01\0\0\0(\0\0\0\0",
            // {[]} and {{}: None}.
            b"<\x01\0\0\0[\0\0\0\0",
            b"{{0N0",
        ];
        for bytes in cases {
            assert!(PlainValue::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    /// Runs `work` on a thread with the stack of one of the runtime's.
    fn on_a_thread(work: impl FnOnce() + Send + 'static) -> Duration {
        let began = Instant::now();
        std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
        began.elapsed()
    }

    #[test]
    fn deep_values_fit_into_the_stack() {
        on_a_thread(|| {
            let list = |value| PlainValue::List(vec![value]);
            let dict = |value| PlainValue::Dict(vec![(PlainValue::text("a"), value)]);
            let tuple = |value| PlainValue::Tuple(vec![value, PlainValue::Int(1)]);
            let set = |value| PlainValue::FrozenSet(vec![PlainValue::Int(2), value]);
            let wraps: [&dyn Fn(PlainValue) -> PlainValue; 4] = [&list, &dict, &tuple, &set];
            for wrap in wraps {
                let deep = (0..DEPTH - 1).fold(PlainValue::Int(7), |value, _| wrap(value));
                let (one, other) = (back(&deep), back(&deep.clone()));
                assert!(one.equals(&other) && one.fingerprint() == other.fingerprint());
                assert_eq!(one.to_string(), format!("{other}"));
                assert_eq!(format!("{one:?}").len(), format!("{other:?}").len());
                assert!(PlainValue::decode(&wrap(wrap(deep)).bytes()).is_err());
            }
        });
    }

    #[test]
    fn large_sets_and_dictionaries_are_compared_in_linear_time() {
        let took = on_a_thread(|| {
            let numbers =
                |order: &mut dyn Iterator<Item = i64>| order.map(PlainValue::Int).collect();
            let (up, down): (Vec<_>, Vec<_>) =
                (numbers(&mut (0..200_000)), numbers(&mut (0..200_000).rev()));
            let mut other = down.clone();
            other[77] = PlainValue::Int(-1);
            let dict = |keys: &[PlainValue]| {
                PlainValue::Dict(keys.iter().map(|key| (key.clone(), key.clone())).collect())
            };
            let (a, b, c) = (dict(&up), back(&dict(&down)), back(&dict(&other)));
            assert!(a.equals(&b) && !a.equals(&c));
            let (a, b, c) =
                (PlainValue::Set(up), back(&PlainValue::Set(down)), back(&PlainValue::Set(other)));
            assert!(a.equals(&b) && !a.equals(&c));
            // A large item at the bottom of many sets is hashed once.
            let wide = PlainValue::Tuple((0..200_000).map(PlainValue::Int).collect());
            let pair = |value| PlainValue::FrozenSet(vec![PlainValue::None, value]);
            let nested = (0..900).fold(wide, |value, _| pair(value));
            assert!(
                !back(&PlainValue::Set(vec![nested]))
                    .equals(&PlainValue::Set(vec![PlainValue::None]))
            );
        });
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = PlainValue::decode(&bytes) {
                let again = back(&value);
                prop_assert_eq!(format!("{value:?}"), format!("{again:?}"));
            }
        }
    }
}
