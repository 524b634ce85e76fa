//! Python's plain data, in the form of `marshal` (version 2), and when two values are equal.
//!
//! Judged code sends what it returns in this form. Only values of exactly the built-in types have
//! it, so an object that is equal to everything does not arrive. It is read here, whatever the
//! bytes are, and written anew before a check sees it: CPython's own reader is not made for hostile
//! bytes.
//!
//! Reading and comparing take time in proportion to the size of the values. Keys of dictionaries
//! and items of sets are found by their fingerprints: hashes that equal keys share, made with a
//! random key so that nobody can aim at them.

use std::borrow::Cow;
use std::fmt;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::hash::RandomState;
use std::sync::LazyLock;

/// Lists within lists, at most: about as deep as CPython can compare them. Every function here that
/// recurses fits that often into the stack of a thread.
const DEPTH: usize = 1000;
/// Bits of a digit of a large integer.
const DIGIT: u32 = 15;

/// A value of a built-in type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PlainValue {
    None,
    Ellipsis,
    Bool(bool),
    Int(i64),
    /// An integer that is no `i64`: whether it is negative, and its digits of 15 bits, the lowest
    /// first.
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

impl PlainValue {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    /// Reads a value and nothing after it.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = ValueReader { rest: bytes };
        let value = reader.value(DEPTH)?;
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

    /// Whether Python's `==` holds between the two. As in Python, NaN is equal to nothing.
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
            _ => self.number_key().is_some_and(|key| other.number_key() == Some(key)),
        }
    }

    /// A hash that equal keys share; `None` for what is equal to nothing, or is no key.
    fn fingerprint(&self) -> Option<ValueFingerprint> {
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

    /// The form that all equal numbers share; `None` for NaN, and for what is no number.
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

    /// The value's bytes, which are the same only for values that are written alike.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    /// A text as it is, any other value as [`fmt::Display`] has it.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => other.to_string(),
        }
    }
}

/// See [`PlainValue::fingerprint`].
type ValueFingerprint = u64;

/// A number in the form that all equal ones share: an integer is compared with a float exactly, not
/// as two floats.
#[derive(Debug, PartialEq, Hash)]
enum NumberKey<'a> {
    Small(i64),
    Large(bool, Cow<'a, [u16]>),
    /// The bits of a float that is no integer.
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

/// The secret of this process that fingerprints are made with.
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

/// The same for any order of the items.
fn of_set(items: impl Iterator<Item = Option<ValueFingerprint>>) -> Option<ValueFingerprint> {
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

/// Fingerprints in order, each with the index of its key; `None` where a key is equal to nothing.
fn sorted<'a>(
    keys: impl Iterator<Item = &'a PlainValue>,
) -> Option<Vec<(ValueFingerprint, usize)>> {
    let with_index = |(index, key): (usize, &PlainValue)| Some((key.fingerprint()?, index));
    let mut keys = keys.enumerate().map(with_index).collect::<Option<Vec<_>>>()?;
    keys.sort_unstable();
    Some(keys)
}

/// Pairs of indices of keys that have the same fingerprint; `None` where a key has no other.
fn pairs_of<'a>(
    a: impl Iterator<Item = &'a PlainValue>,
    b: impl Iterator<Item = &'a PlainValue>,
) -> Option<Vec<(usize, usize)>> {
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

fn encode_all(kind: u8, values: &[PlainValue], out: &mut Vec<u8>) {
    out.push(kind);
    encode_length(values.len(), out);
    for value in values {
        value.encode(out);
    }
}

/// The mark that ends a dictionary.
const END: u8 = b'0';

/// A key with its fingerprint.
type FoundKey = (PlainValue, Option<ValueFingerprint>);

/// Refuses keys of which two are equal. No Python has a set or dictionary with such, but the sizes
/// of two sets decide whether they are equal.
fn distinct(prints: Vec<Option<ValueFingerprint>>) -> Result<(), &'static str> {
    let mut prints: Vec<ValueFingerprint> = prints.into_iter().flatten().collect();
    prints.sort_unstable();
    let is_double = prints.windows(2).any(|pair| pair[0] == pair[1]);
    if is_double { Err("a set or dictionary with a double entry") } else { Ok(()) }
}

struct ValueReader<'a> {
    rest: &'a [u8],
}

impl<'a> ValueReader<'a> {
    /// The next value.
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

    /// A value that holds no others.
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
            _ => return Err("a value of no plain type"),
        })
    }

    /// A key, which begins with `tag`, and its fingerprint. Both are made from the bottom up:
    /// however keys are nested, each part is hashed once.
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
            b'[' | b'<' | b'{' => Err("a key or an item of a set that cannot be hashed"),
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

    /// The items of a set.
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
        // Every part has a byte at least: nobody makes us set aside more than there is.
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
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Ok(small(n < 0, &digits).map_or(PlainValue::Large(n < 0, digits), PlainValue::Int))
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

impl fmt::Display for PlainValue {
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
    fn equality_is_python_s() {
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
    fn large_sets_and_dictionaries_are_compared_at_once() {
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
