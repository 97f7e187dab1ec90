//! The running kernel's types, from its BTF: where the fields are that the programs read.

use std::{collections::HashMap, path::Path};

use agent_common::probes::{ABSENT, Constant, Value};
use anyhow::{Context as _, anyhow, bail};
use btfparse::{Integer32Value, Offset, Readable, TypeInformation, TypeVariant};

use super::btf::Vetted;
use crate::functions;

/// Parsed BTF. Some tens of MB while it lives: made for loading, then dropped.
pub struct KernelTypes {
    types: TypeInformation,
    /// Structures by name; other kinds of types may have the same name.
    structures: HashMap<String, u32>,
    /// Prototypes of tracepoints: `btf_trace_NAME`.
    typedefs: HashMap<String, u32>,
}

struct Bytes<'a>(&'a [u8]);

impl Readable for Bytes<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = start
            .checked_add(buffer.len())
            .and_then(|end| self.0.get(start..end))
            .ok_or_else(|| btfparse::Error::new(btfparse::ErrorKind::EOF, "cut short"))?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

impl KernelTypes {
    /// Parses BTF.
    ///
    /// # Errors
    /// It has something that is not understood.
    pub fn parse(btf: &Vetted) -> anyhow::Result<Self> {
        let types =
            TypeInformation::new(&Bytes(btf.bytes())).map_err(|error| anyhow!("{error:?}"))?;
        let mut structures = HashMap::new();
        let mut typedefs = HashMap::new();
        for (id, kind) in types.get() {
            match kind {
                TypeVariant::Struct(structure) => {
                    if let Some(name) = structure.name() {
                        structures.entry(name.clone()).or_insert(*id);
                    }
                }
                TypeVariant::Typedef(typedef) => {
                    if let Some(name) = typedef.name()
                        && name.starts_with("btf_trace_")
                    {
                        typedefs.insert(name.clone(), *id);
                    }
                }
                _ => {}
            }
        }
        Ok(Self {
            types,
            structures,
            typedefs,
        })
    }

    /// Offset in bytes of a member, given as `a.b`; `None` if there is no such structure or member.
    #[must_use]
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let id = self.structures.get(structure)?;
        match self.types.offset_of(*id, path) {
            Ok((_, Offset::ByteOffset(offset))) => Some(offset),
            _ => None,
        }
    }

    /// Number of arguments of a tracepoint, as programs see them; `None` if there is no such tracepoint.
    #[must_use]
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let id = self.typedefs.get(&format!("btf_trace_{tracepoint}"))?;
        let TypeVariant::Typedef(typedef) = self.types.get().get(id)? else {
            return None;
        };
        let TypeVariant::Ptr(pointer) = self.types.get().get(typedef.tid())? else {
            return None;
        };
        let TypeVariant::FuncProto(prototype) = self.types.get().get(pointer.tid())? else {
            return None;
        };
        // The first is the tracepoint's own data, which programs do not get.
        prototype.parameter_list().len().checked_sub(1)
    }

    /// The value of an enumerator, whatever its enumeration.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        self.types.get().values().find_map(|kind| {
            let TypeVariant::Enum(kind) = kind else {
                return None;
            };
            let value = kind
                .named_value_list()
                .iter()
                .find(|value| value.name == name)?;
            match value.value {
                Integer32Value::Signed(value) => u32::try_from(value).ok(),
                Integer32Value::Unsigned(value) => Some(value),
            }
        })
    }

    /// The value of a constant on this kernel.
    ///
    /// # Errors
    /// A field that the probe cannot do without is not there.
    pub fn constant(&self, constant: &Constant) -> anyhow::Result<u32> {
        let first = |paths: &[(&str, &str)]| {
            paths
                .iter()
                .find_map(|(structure, path)| self.offset(structure, path))
        };
        match constant.value {
            Value::Offset(paths) => Ok(first(paths).unwrap_or(ABSENT)),
            Value::RequiredOffset(paths) => match first(paths) {
                Some(offset) => Ok(offset),
                None => {
                    let (structure, path) = paths.first().context("a constant without a path")?;
                    bail!("this kernel's struct {structure} has no {path}")
                }
            },
            Value::KprobeSymbol(names) => {
                Ok(functions::address(Path::new("/"), names)
                    .map_or(ABSENT, |address| address as u32))
            }
            Value::PageSize => Ok(super::page_bytes().try_into()?),
            Value::Enumerator(name, before) => Ok(self.enumerator(name).unwrap_or(before)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "btf_trace_block_rq_issue";

    /// BTF (Documentation/bpf/btf.rst) of a tracepoint whose prototype has that many parameters.
    fn tracepoint(parameters: u32) -> Vec<u8> {
        let word = |kind: u32, length: u32| kind << 24 | length;
        // PTR to void; FUNC_PROTO without a result; PTR to it; TYPEDEF of that.
        let mut types = vec![0, word(2, 0), 0, 0, word(13, parameters), 0];
        types.extend([0, 1].repeat(parameters as usize));
        types.extend([0, word(2, 0), 2, 1, word(8, 0), 3]);
        let strings = format!("\0{NAME}\0");
        let type_bytes = types.len() as u32 * 4;
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        for header in [24, 0, type_bytes, type_bytes, strings.len() as u32] {
            btf.extend(u32::to_le_bytes(header));
        }
        btf.extend(types.iter().flat_map(|word: &u32| word.to_le_bytes()));
        btf.extend(strings.bytes());
        btf
    }

    /// With the queue in front the prototype had three parameters, without it has two; the first is the
    /// tracepoint's own.
    #[test]
    fn anchor_2_arguments_of_a_tracepoint_are_counted() {
        for (parameters, arguments) in [(2, 1), (3, 2)] {
            let btf = Vetted::new(tracepoint(parameters)).unwrap();
            let types = KernelTypes::parse(&btf).unwrap();
            assert_eq!(
                types.tracepoint_arguments("block_rq_issue"),
                Some(arguments)
            );
            assert_eq!(types.tracepoint_arguments("block_rq_insert"), None);
        }
    }
}
