//! GGUF reader (versions 2 and 3, little endian): metadata and the tensor directory.
//!
//! Every length in the file is checked against the file size before anything is allocated, so a
//! truncated or forged file is an error and never a panic. Format: ggml's GGUF document.
//!
//! ```text
//! "GGUF" version n_tensors n_metadata
//! n_metadata x (key, type, value)
//! n_tensors  x (name, n_dims, dims innermost first, ggml type, offset)
//! padding to `general.alignment` (32)
//! tensor data; offsets count from here
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use super::ModelError;
use super::quant::GgmlType;

/// Maximum entries of a directory or array; real files stay far below.
const MAX_ENTRIES: u64 = 1 << 20;

/// A value of the GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MetadataValue {
    /// Any integer type, widened to `i64`.
    Int(i64),
    /// `f32` or `f64`, widened.
    Float(f64),
    /// A boolean, stored as one byte.
    Bool(bool),
    /// A string, checked to be UTF-8.
    Text(String),
    /// Elements of one type.
    Array(Vec<Self>),
}

/// Shape, type and file position of a tensor.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    /// Values per row: the input features of a linear layer.
    pub(super) columns: usize,
    /// Rows: the output features of a linear layer; 1 for a vector.
    pub(super) rows: usize,
    /// Storage type of the values.
    pub(super) kind: GgmlType,
    /// Absolute offset in the file.
    offset: u64,
    /// Length of the raw blocks in bytes.
    n_bytes: usize,
}

/// An open GGUF file: metadata in memory, tensors read on demand.
#[derive(Debug)]
pub(super) struct GgufFile {
    path: PathBuf,
    file: File,
    metadata: BTreeMap<String, MetadataValue>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl GgufFile {
    /// Opens `path` and reads header, metadata and the tensor directory.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        // Checked before opening: opening a FIFO blocks until it has a writer.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            let kind = std::io::ErrorKind::InvalidInput;
            return Err(io(std::io::Error::new(kind, "not a regular file")));
        }
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut reader = GgufReader { inner: BufReader::new(&file), size, at: 0 };
        let (metadata, infos) =
            reader.header().map_err(|fault| fault.at(path, "header or metadata"))?;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(MetadataValue::Int(n)) if *n > 0 && *n <= 1 << 20 => n.unsigned_abs(),
            Some(_) => {
                let reason = "invalid `general.alignment`".to_owned();
                return Err(ModelError::Malformed { path: path.to_owned(), reason });
            }
        };
        let data = reader.at.next_multiple_of(alignment);
        let tensors = place(infos, data, size).map_err(|fault| fault.at(path, "tensors"))?;
        Ok(Self { path: path.to_owned(), file, metadata, tensors })
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a metadata value.
    pub(super) fn get(&self, key: &str) -> Option<&MetadataValue> {
        self.metadata.get(key)
    }

    /// Returns a required string.
    pub(super) fn text(&self, key: &str) -> Result<&str, ModelError> {
        match self.get(key) {
            Some(MetadataValue::Text(text)) => Ok(text),
            _ => Err(self.missing(key, "a string")),
        }
    }

    /// Returns a required count in `1..2^31`.
    pub(super) fn count(&self, key: &str) -> Result<usize, ModelError> {
        match self.get(key) {
            Some(MetadataValue::Int(n)) if (1..1 << 31).contains(n) => {
                Ok(usize::try_from(*n).expect("checked to be in range"))
            }
            _ => Err(self.missing(key, "a positive integer")),
        }
    }

    /// Returns a required finite number.
    #[expect(clippy::cast_possible_truncation, reason = "stored as f32 in the file")]
    pub(super) fn float(&self, key: &str) -> Result<f32, ModelError> {
        match self.get(key) {
            Some(MetadataValue::Float(x)) if x.is_finite() => Ok(*x as f32),
            _ => Err(self.missing(key, "a finite number")),
        }
    }

    /// Returns a required array.
    pub(super) fn array(&self, key: &str) -> Result<&[MetadataValue], ModelError> {
        match self.get(key) {
            Some(MetadataValue::Array(values)) => Ok(values),
            _ => Err(self.missing(key, "an array")),
        }
    }

    /// Returns the directory entry of a required tensor.
    pub(super) fn tensor(&self, name: &str) -> Result<&TensorInfo, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::Malformed {
            path: self.path.clone(),
            reason: format!("tensor `{name}` is missing"),
        })
    }

    /// Whether the file has a tensor of this name.
    pub(super) fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads all raw blocks of a tensor.
    pub(super) fn read(&self, info: &TensorInfo) -> Result<Vec<u8>, ModelError> {
        let mut bytes = vec![0; info.n_bytes];
        self.read_part(info, 0, &mut bytes).map_err(|source| self.unread(source))?;
        Ok(bytes)
    }

    /// Fills `bytes` from the tensor's blocks, starting at byte `at`.
    ///
    /// # Panics
    /// When the range extends past the end of the tensor.
    pub(super) fn read_part(
        &self,
        info: &TensorInfo,
        at: usize,
        bytes: &mut [u8],
    ) -> std::io::Result<()> {
        assert!(at + bytes.len() <= info.n_bytes, "within the tensor");
        self.file.read_exact_at(bytes, info.offset + at as u64)
    }

    /// Wraps an I/O error with the file's path.
    pub(super) fn unread(&self, source: std::io::Error) -> ModelError {
        ModelError::Io { path: self.path.clone(), source }
    }

    fn missing(&self, key: &str, expected: &str) -> ModelError {
        ModelError::Malformed {
            path: self.path.clone(),
            reason: format!("metadata `{key}` is missing or not {expected}"),
        }
    }
}

/// An unchecked directory entry; its offset is relative to the data section.
struct RawInfo {
    name: String,
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// Validates every directory entry against the file size and makes offsets absolute.
fn place(
    infos: Vec<RawInfo>,
    data: u64,
    size: u64,
) -> Result<BTreeMap<String, TensorInfo>, GgufFault> {
    let mut placed = BTreeMap::new();
    // Overlapping tensors would let a small file demand any amount of memory. Their total size must
    // fit the data section, which also catches overlaps that no pairwise check looks for.
    let mut left = size.saturating_sub(data);
    for info in infos {
        let RawInfo { name, dims, kind, offset } = info;
        let kind = GgmlType::from_code(kind).ok_or_else(|| {
            GgufFault::Unsupported(format!("tensor `{name}` has ggml type {kind}"))
        })?;
        let too_large =
            || GgufFault::Broken(format!("tensor `{name}` extends past the end of the file"));
        let columns = dims.first().copied().unwrap_or(1);
        let rows = dims.iter().skip(1).try_fold(1_u64, |n, dim| n.checked_mul(*dim));
        let (Ok(columns), Some(Ok(rows))) = (usize::try_from(columns), rows.map(usize::try_from))
        else {
            return Err(too_large());
        };
        let n_bytes = kind
            .row_bytes(columns)
            .ok_or_else(|| {
                GgufFault::Broken(format!(
                    "tensor `{name}` has rows of {columns} values, not a multiple of its block size"
                ))
            })?
            .checked_mul(rows)
            .ok_or_else(too_large)?;
        let start = data.checked_add(offset).ok_or_else(too_large)?;
        if start.checked_add(n_bytes as u64).is_none_or(|end| end > size) {
            return Err(too_large());
        }
        left = left
            .checked_sub(n_bytes as u64)
            .ok_or_else(|| GgufFault::Broken(format!("tensor `{name}` overlaps another tensor")))?;
        let info = TensorInfo { columns, rows, kind, offset: start, n_bytes };
        if placed.insert(name.clone(), info).is_some() {
            return Err(GgufFault::Broken(format!("duplicate tensor `{name}`")));
        }
    }
    Ok(placed)
}

/// A parse failure, before the file's path is attached.
enum GgufFault {
    Io(std::io::Error),
    Broken(String),
    Unsupported(String),
}

impl GgufFault {
    fn at(self, path: &Path, part: &str) -> ModelError {
        let path = path.to_owned();
        match self {
            Self::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                ModelError::Malformed { path, reason: format!("the file ends inside its {part}") }
            }
            Self::Io(source) => ModelError::Io { path, source },
            Self::Broken(reason) => ModelError::Malformed { path, reason },
            Self::Unsupported(what) => ModelError::Unsupported { path, what },
        }
    }
}

impl From<std::io::Error> for GgufFault {
    fn from(source: std::io::Error) -> Self {
        Self::Io(source)
    }
}

/// A reader that tracks how much of the file is left.
struct GgufReader<R> {
    inner: R,
    size: u64,
    at: u64,
}

impl<R: Read + Seek> GgufReader<R> {
    fn header(&mut self) -> Result<(BTreeMap<String, MetadataValue>, Vec<RawInfo>), GgufFault> {
        if self.bytes::<4>()? != *b"GGUF" {
            return Err(GgufFault::Broken("missing `GGUF` magic bytes".to_owned()));
        }
        let version = self.u32()?;
        // A small number in the wrong byte order is a file for big-endian machines.
        if (1..=3).contains(&version.swap_bytes()) {
            return Err(GgufFault::Unsupported("big-endian byte order".to_owned()));
        }
        if !(2..=3).contains(&version) {
            return Err(GgufFault::Unsupported(format!("GGUF version {version}")));
        }
        // Minimum entry sizes: a tensor is a name length, n_dims, type and offset; a metadata entry
        // is a key length, a type and one byte.
        let n_tensors = self.n_entries(24)?;
        let n_metadata = self.n_entries(13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..n_metadata {
            let key = self.string()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            metadata.insert(key, value);
        }
        let infos = (0..n_tensors).map(|_| self.tensor_info()).collect::<Result<_, _>>()?;
        Ok((metadata, infos))
    }

    fn tensor_info(&mut self) -> Result<RawInfo, GgufFault> {
        let name = self.string()?;
        let n_dims = self.u32()?;
        if n_dims > 4 {
            return Err(GgufFault::Broken(format!("tensor `{name}` has {n_dims} dimensions")));
        }
        let dims = (0..n_dims).map(|_| self.u64()).collect::<Result<_, _>>()?;
        Ok(RawInfo { name, dims, kind: self.u32()?, offset: self.u64()? })
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<MetadataValue, GgufFault> {
        Ok(match kind {
            0 => MetadataValue::Int(i64::from(self.bytes::<1>()?[0])),
            1 => MetadataValue::Int(i64::from(i8::from_le_bytes(self.bytes()?))),
            2 => MetadataValue::Int(i64::from(u16::from_le_bytes(self.bytes()?))),
            3 => MetadataValue::Int(i64::from(i16::from_le_bytes(self.bytes()?))),
            4 => MetadataValue::Int(i64::from(self.u32()?)),
            5 => MetadataValue::Int(i64::from(i32::from_le_bytes(self.bytes()?))),
            6 => MetadataValue::Float(f64::from(f32::from_le_bytes(self.bytes()?))),
            7 => MetadataValue::Bool(self.bytes::<1>()?[0] != 0),
            8 => MetadataValue::Text(self.string()?),
            // The depth limit bounds the recursion; real files nest no arrays.
            9 if depth < 2 => {
                let kind = self.u32()?;
                let n = self.n_entries(1)?;
                MetadataValue::Array(
                    (0..n).map(|_| self.value(kind, depth + 1)).collect::<Result<_, _>>()?,
                )
            }
            10 => MetadataValue::Int(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => MetadataValue::Int(i64::from_le_bytes(self.bytes()?)),
            12 => MetadataValue::Float(f64::from_le_bytes(self.bytes()?)),
            _ => return Err(GgufFault::Broken(format!("unknown metadata type {kind}"))),
        })
    }

    /// Reads an entry count. Rejects counts whose entries, of at least `least` bytes each, would
    /// exceed the rest of the file.
    fn n_entries(&mut self, least: u64) -> Result<u64, GgufFault> {
        let n = self.u64()?;
        if n > MAX_ENTRIES || n.saturating_mul(least) > self.left() {
            return Err(GgufFault::Broken(format!("a list of {n} entries exceeds the file size")));
        }
        Ok(n)
    }

    fn string(&mut self) -> Result<String, GgufFault> {
        let length = self.u64()?;
        if length > self.left() {
            return Err(GgufFault::Broken(format!(
                "a string of {length} bytes exceeds the file size"
            )));
        }
        let mut bytes = vec![0; usize::try_from(length).expect("no longer than the file")];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes)
            .map_err(|_| GgufFault::Broken("a string is not valid UTF-8".to_owned()))
    }

    /// Bytes left, by the file size at the time of opening.
    fn left(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }

    fn u32(&mut self) -> Result<u32, GgufFault> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, GgufFault> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufFault> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufFault> {
        self.inner.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
