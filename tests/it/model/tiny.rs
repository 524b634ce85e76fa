//! A tiny GGUF model with its own writer, so that tests can produce malformed files.

/// A GGUF metadata value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<i32>),
}

/// A tensor: directory entry and data.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// Innermost first, as in the file.
    pub(super) dims: Vec<u64>,
    pub(super) kind: u32,
    pub(super) bytes: Vec<u8>,
}

/// Contents of a GGUF file.
#[derive(Debug, Clone)]
pub(crate) struct Gguf {
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) tensors: Vec<Tensor>,
}

impl Gguf {
    /// Modifies the values of an `F32` tensor.
    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut [f32])) {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        assert_eq!(tensor.kind, F32);
        let numbers = tensor.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let mut numbers: Vec<f32> = numbers.collect();
        change(&mut numbers);
        tensor.bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    }
}

/// ggml's type numbers.
pub(crate) const F32: u32 = 0;
pub(crate) const Q8_0: u32 = 8;

/// A model of two layers, 2 heads on 1 key head and 260 tokens: all bytes, two merged letters, the
/// control tokens. `hidden` is a multiple of 4.
pub(crate) fn model(arch: &str, kind: u32, hidden: usize, ffn: usize) -> Gguf {
    let mut tokens: Vec<String> = (0_u8..=255).map(|byte| letter(byte).to_string()).collect();
    tokens.extend(["ab", "<|im_start|>", "<|im_end|>", "<|endoftext|>"].map(str::to_owned));
    let kinds = (0..tokens.len()).map(|i| if i > 256 { 3 } else { 1 }).collect();
    let text = |text: &str| Value::Text(text.to_owned());
    let number = |n: usize| Value::U32(u32::try_from(n).unwrap());
    let key = |name: &str| format!("{arch}.{name}");
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";
    let n_tokens = tokens.len();
    let metadata = vec![
        ("general.architecture".to_owned(), text(arch)),
        (key("block_count"), number(2)),
        (key("context_length"), number(128)),
        (key("embedding_length"), number(hidden)),
        (key("feed_forward_length"), number(ffn)),
        (key("attention.head_count"), number(2)),
        (key("attention.head_count_kv"), number(1)),
        (key("rope.freq_base"), Value::F32(10_000.0)),
        (key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5)),
        ("tokenizer.ggml.model".to_owned(), text("gpt2")),
        ("tokenizer.ggml.pre".to_owned(), text(if arch == "llama" { "smollm" } else { "qwen2" })),
        ("tokenizer.ggml.tokens".to_owned(), Value::Texts(tokens)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Numbers(kinds)),
        ("tokenizer.ggml.merges".to_owned(), Value::Texts(vec!["a b".to_owned()])),
        ("tokenizer.ggml.eos_token_id".to_owned(), number(258)),
        ("tokenizer.chat_template".to_owned(), text(template)),
    ];
    let mut tensors = Vec::new();
    let mut add = |name: &str, dims: &[usize], kind: u32| {
        let seed = tensors.len() as u64 + 1;
        let bytes = weights(kind, dims.iter().product(), seed);
        let dims = dims.iter().map(|dim| *dim as u64).collect();
        tensors.push(Tensor { name: name.to_owned(), dims, kind, bytes });
    };
    add("token_embd.weight", &[hidden, n_tokens], kind);
    add("output_norm.weight", &[hidden], F32);
    for layer in 0..2 {
        let kv = hidden / 2;
        for (part, dims) in [
            ("attn_norm", &[hidden][..]),
            ("attn_q", &[hidden, hidden]),
            ("attn_k", &[hidden, kv]),
            ("attn_v", &[hidden, kv]),
            ("attn_output", &[hidden, hidden]),
            ("ffn_norm", &[hidden]),
            ("ffn_gate", &[hidden, ffn]),
            ("ffn_up", &[hidden, ffn]),
            ("ffn_down", &[ffn, hidden]),
        ] {
            let kind = if dims.len() == 1 { F32 } else { kind };
            add(&format!("blk.{layer}.{part}.weight"), dims, kind);
            if arch == "qwen2" && matches!(part, "attn_q" | "attn_k" | "attn_v") {
                add(&format!("blk.{layer}.{part}.bias"), &dims[1..], F32);
            }
        }
    }
    Gguf { metadata, tensors }
}

impl Gguf {
    /// The same with a context window of so many tokens.
    pub(crate) fn with_context(mut self, n_tokens: u32) -> Self {
        *self.value("context_length") = Value::U32(n_tokens);
        self
    }

    pub(super) fn value(&mut self, key: &str) -> &mut Value {
        &mut self.metadata.iter_mut().find(|(k, _)| k.ends_with(key)).unwrap().1
    }

    /// Adds to the numbers of an `F32` tensor.
    pub(super) fn add(&mut self, name: &str, delta: &[f32]) {
        let tensor = self.tensor(name);
        let numbers = tensor.bytes.as_chunks_mut::<4>().0;
        assert_eq!(numbers.len(), delta.len(), "{name}");
        for (bytes, delta) in numbers.iter_mut().zip(delta) {
            *bytes = (f32::from_le_bytes(*bytes) + delta).to_le_bytes();
        }
    }

    pub(super) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// Encodes the file. Returns the length of header, metadata and directory, and all bytes.
    pub(crate) fn encode(&self) -> (usize, Vec<u8>) {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut file, key);
            put_value(&mut file, value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            put_text(&mut file, &tensor.name);
            file.extend(u32::try_from(tensor.dims.len()).unwrap().to_le_bytes());
            tensor.dims.iter().for_each(|dim| file.extend(dim.to_le_bytes()));
            file.extend(tensor.kind.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        let head = file.len();
        file.extend(data);
        (head, file)
    }
}

fn put_text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn put_value(file: &mut Vec<u8>, value: &Value) {
    let kind = |file: &mut Vec<u8>, kind: u32| file.extend(kind.to_le_bytes());
    match value {
        Value::U32(n) => {
            kind(file, 4);
            file.extend(n.to_le_bytes());
        }
        Value::F32(x) => {
            kind(file, 6);
            file.extend(x.to_le_bytes());
        }
        Value::Text(text) => {
            kind(file, 8);
            put_text(file, text);
        }
        Value::Texts(texts) => {
            kind(file, 9);
            kind(file, 8);
            file.extend((texts.len() as u64).to_le_bytes());
            for text in texts {
                put_text(file, text);
            }
        }
        Value::Numbers(numbers) => {
            kind(file, 9);
            kind(file, 5);
            file.extend((numbers.len() as u64).to_le_bytes());
            for n in numbers {
                file.extend(n.to_le_bytes());
            }
        }
    }
}

/// GPT-2's character for a byte.
fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(*byte)).count();
    char::from_u32(256 + u32::try_from(before).unwrap()).unwrap()
}

/// Random weights between -0.5 and 0.5.
fn weights(kind: u32, n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    if kind == Q8_0 {
        let block = |_| {
            let scale = half::f16::from_f32(1.0 / 256.0).to_le_bytes();
            scale.into_iter().chain((0..32).map(|_| next())).collect::<Vec<u8>>()
        };
        return (0..n / 32).flat_map(block).collect();
    }
    (0..n).flat_map(|_| (f32::from(next()) / 256.0 - 0.5).to_le_bytes()).collect()
}
