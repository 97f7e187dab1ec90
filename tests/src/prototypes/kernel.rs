//! Prototypes as the running kernel has them, from its BTF.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use btfparse::{Error, ErrorKind, FuncProto, Readable, TypeInformation, TypeVariant};

use super::declaration::{Prototype, Type};

/// Where a kernel has its BTF.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";
/// What the typedef of a tracepoint's prototype begins with.
const TRACEPOINT: &str = "btf_trace_";

/// The types of a kernel.
pub struct Kernel {
    types: TypeInformation,
    /// By name; there may be several static ones.
    functions: HashMap<String, Vec<u32>>,
    /// Of tracepoints, by name.
    tracepoints: HashMap<String, u32>,
}

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.0.get(from..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or_else(|| Error::new(ErrorKind::EOF, "cut short"))?);
        Ok(())
    }
}

impl Kernel {
    /// # Errors
    /// The file is no BTF.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let types = TypeInformation::new(&Bytes(bytes))
            .map_err(|error| anyhow!("failed to read {}: {error:?}", path.display()))?;
        let mut functions: HashMap<String, Vec<u32>> = HashMap::new();
        let mut tracepoints = HashMap::new();
        for (id, kind) in types.get() {
            match kind {
                TypeVariant::Func(function) => {
                    let name = function.name().clone().unwrap_or_default();
                    functions.entry(name).or_default().push(*id);
                }
                TypeVariant::Typedef(typedef) => {
                    let name = typedef.name().clone().unwrap_or_default();
                    if let Some(name) = name.strip_prefix(TRACEPOINT) {
                        tracepoints.insert(name.into(), *id);
                    }
                }
                _ => {}
            }
        }
        Ok(Self {
            types,
            functions,
            tracepoints,
        })
    }

    /// All of that name and kind: none where the compiler inlined the function or changed its arguments.
    ///
    /// # Errors
    /// The kernel's types do not hang together.
    pub fn prototypes(&self, tracepoint: bool, name: &str) -> Result<Vec<Prototype>> {
        let found = if tracepoint {
            let typedef = self.tracepoints.get(name);
            typedef
                .map(|id| self.tracepoint(name, *id))
                .into_iter()
                .collect()
        } else {
            let functions = self.functions.get(name).into_iter().flatten();
            functions.map(|id| self.function(name, *id)).collect()
        };
        let found: Result<Vec<Prototype>> = found;
        found.with_context(|| format!("failed to read the kernel's prototype of {name}"))
    }

    fn function(&self, name: &str, id: u32) -> Result<Prototype> {
        let TypeVariant::Func(function) = self.kind(id)? else {
            bail!("type {id} is no function");
        };
        let prototype = self.function_prototype(*function.prototype_tid())?;
        self.prototype(false, name, prototype)
    }

    /// A typedef of a pointer to a function, of which the first parameter is the tracepoint's own.
    fn tracepoint(&self, name: &str, id: u32) -> Result<Prototype> {
        let TypeVariant::Typedef(typedef) = self.kind(id)? else {
            bail!("type {id} is no typedef");
        };
        let TypeVariant::Ptr(pointer) = self.kind(*typedef.tid())? else {
            bail!("{TRACEPOINT}{name} is no pointer");
        };
        let mut prototype = self.prototype(true, name, self.function_prototype(*pointer.tid())?)?;
        if prototype
            .parameters
            .first()
            .is_none_or(|own| own != "void *")
        {
            bail!("the first parameter of {TRACEPOINT}{name} is no void *");
        }
        prototype.parameters.remove(0);
        Ok(prototype)
    }

    fn function_prototype(&self, id: u32) -> Result<&FuncProto> {
        match self.kind(id)? {
            TypeVariant::FuncProto(prototype) => Ok(prototype),
            other => bail!("type {id} is no prototype: {other:?}"),
        }
    }

    fn prototype(&self, tracepoint: bool, name: &str, found: &FuncProto) -> Result<Prototype> {
        let parameters = found.parameter_list().iter();
        Ok(Prototype {
            tracepoint,
            name: name.into(),
            result: self.text(*found.return_tid())?,
            parameters: parameters
                .map(|parameter| self.text(parameter.tid()))
                .collect::<Result<_>>()?,
        })
    }

    fn text(&self, id: u32) -> Result<String> {
        Ok(self.name(id)?.text())
    }

    fn name(&self, id: u32) -> Result<Type> {
        let named = |before: &str, name: &Option<String>| {
            Type::named(&format!(
                "{before}{}",
                name.as_deref().unwrap_or("(anonymous)")
            ))
        };
        Ok(match self.kind(id)? {
            TypeVariant::Void => Type::named("void"),
            // The compiler's own name, where the kernel's `bool` is no typedef of it.
            TypeVariant::Int(int) if int.name().as_deref() == Some("_Bool") => Type::named("bool"),
            TypeVariant::Int(int) => named("", int.name()),
            TypeVariant::Float(float) => named("", float.name()),
            TypeVariant::Typedef(typedef) => named("", typedef.name()),
            TypeVariant::Struct(structure) => named("struct ", structure.name()),
            TypeVariant::Union(union) => named("union ", union.name()),
            TypeVariant::Fwd(forward) => named("struct ", forward.name()),
            TypeVariant::Enum(kind) => named("enum ", kind.name()),
            TypeVariant::Enum64(kind) => named("enum ", kind.name()),
            TypeVariant::Ptr(pointer) => self.name(*pointer.tid())?.pointer(),
            TypeVariant::Const(inner) => self.name(*inner.tid())?.qualified("const"),
            TypeVariant::Volatile(inner) => self.name(*inner.tid())?.qualified("volatile"),
            // Marks of the kernel, as `__user`.
            TypeVariant::TypeTag(inner) => self.name(*inner.tid())?,
            other => bail!("type {id} is no type of a parameter: {other:?}"),
        })
    }

    fn kind(&self, id: u32) -> Result<&TypeVariant> {
        if id == 0 {
            return Ok(&TypeVariant::Void);
        }
        let kind = self.types.get().get(&id);
        kind.with_context(|| format!("there is no type {id}"))
    }
}
