//! How the types of BTF refer to each other: to types that are there, none to itself, and members lie in their structure.

use super::entries::{
    ARRAY, CONST, DATASEC, DECL_TAG, ENUM, ENUM64, Entries, Entry, FLOAT, FUNC, FUNC_PROTO, FWD,
    INT, PTR, RESTRICT, STRUCT, TYPE_TAG, TYPEDEF, UNION, VAR, VOLATILE, word,
};

/// Types within types. Kernels have 20 or so; whoever follows them may call itself for each.
const DEEPEST: u8 = 64;
/// Members of a structure with those of the nameless ones in it. Whoever looks for a name looks at all of them; a
/// few dozen nameless structures within each other, two of the next in each, would have more than can be looked at.
const MEMBERS: u32 = 1 << 17;

/// What is known of a type once all that it contains is.
#[derive(Clone, Copy, Default)]
struct Shape {
    state: State,
    /// Types within types.
    height: u8,
    /// Bytes.
    size: u32,
    /// Members that are found by name.
    members: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unseen,
    /// What it contains is being looked at.
    Open,
    Known,
}

struct Nesting<'a> {
    entries: &'a Entries<'a>,
    /// By id.
    shapes: Vec<Shape>,
}

/// Checks all types.
///
/// # Errors
/// What is wrong with one.
pub fn check(entries: &Entries<'_>) -> Result<(), String> {
    if let Some(id) = endless(entries) {
        return Err(format!("type {id} refers to itself"));
    }
    let mut nesting = Nesting {
        entries,
        shapes: vec![Shape::default(); entries.last() as usize + 1],
    };
    // `void`.
    nesting.shapes[0].state = State::Known;
    for id in 1..=entries.last() {
        nesting.shape(id, 0)?;
    }
    Ok(())
}

/// A type that is a pointer to, or a `const` of, nothing but itself.
fn endless(entries: &Entries<'_>) -> Option<u32> {
    // By id: from where it was come by first.
    let mut origins = vec![0; entries.last() as usize + 1];
    for start in 1..=entries.last() {
        let mut id = start;
        while (1..=entries.last()).contains(&id) {
            let entry = entries.get(id);
            match origins[id as usize] {
                0 if refers(entry.kind) => origins[id as usize] = start,
                origin if origin == start => return Some(id),
                _ => break,
            }
            id = entry.size_or_type;
        }
    }
    None
}

/// Whether it is another type with a word before it.
fn refers(kind: u8) -> bool {
    kind == PTR || qualifies(kind)
}

/// As [`refers`], and takes the room that the other type takes.
fn qualifies(kind: u8) -> bool {
    matches!(kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG | VAR)
}

impl Nesting<'_> {
    fn shape(&mut self, id: u32, depth: u8) -> Result<Shape, String> {
        let known = self.shapes[id as usize];
        match known.state {
            State::Known => return Ok(known),
            State::Open => return Err(format!("type {id} contains itself")),
            State::Unseen => {}
        }
        self.shapes[id as usize].state = State::Open;
        let mut shape = self.look(id, self.entries.get(id), depth)?;
        shape.state = State::Known;
        self.shapes[id as usize] = shape;
        Ok(shape)
    }

    fn look(&mut self, id: u32, entry: Entry<'_>, depth: u8) -> Result<Shape, String> {
        let mut shape = Shape::default();
        match entry.kind {
            INT | ENUM | ENUM64 | FLOAT => shape.size = entry.size_or_type,
            PTR | FUNC | DECL_TAG => {
                self.there(id, entry.size_or_type)?;
                shape.size = size_of::<u64>() as u32;
            }
            FUNC_PROTO => {
                self.there(id, entry.size_or_type)?;
                for parameter in entry.listed() {
                    self.there(id, word(parameter, 1))?;
                }
            }
            FWD if entry.size_or_type != 0 => {
                return Err(format!("type {id} is declared only, and yet of a type"));
            }
            kind if qualifies(kind) => {
                let inner = self.inner(id, entry.size_or_type, depth, &mut shape)?;
                (shape.size, shape.members) = (inner.size, inner.members);
            }
            ARRAY => {
                let inner = self.inner(id, word(entry.behind, 0), depth, &mut shape)?;
                self.inner(id, word(entry.behind, 1), depth, &mut shape)?;
                let size = inner.size.checked_mul(word(entry.behind, 2));
                shape.size = size.ok_or_else(|| format!("type {id} is an array beyond 4 GiB"))?;
            }
            STRUCT | UNION => self.members(id, &entry, depth, &mut shape)?,
            DATASEC => {
                for variable in entry.listed() {
                    self.inner(id, word(variable, 0), depth, &mut shape)?;
                }
            }
            _ => {}
        }
        Ok(shape)
    }

    /// The members of a structure: where they end, and how many there are.
    fn members(
        &mut self,
        id: u32,
        entry: &Entry<'_>,
        depth: u8,
        shape: &mut Shape,
    ) -> Result<(), String> {
        shape.size = entry.size_or_type;
        for (place, member) in entry.listed().enumerate() {
            let inner = self.inner(id, word(member, 1), depth, shape)?;
            let end = end(entry.flag, word(member, 2), inner.size);
            if end > u64::from(shape.size) {
                return Err(format!(
                    "member {place} of type {id} ends at {end}, outside of its {} bytes",
                    shape.size
                ));
            }
            let nameless = word(member, 0) == 0;
            shape.members += 1 + if nameless { inner.members } else { 0 };
            if shape.members > MEMBERS {
                return Err(format!("type {id} has more than {MEMBERS} members"));
            }
        }
        Ok(())
    }

    /// The shape of a type within another.
    fn inner(
        &mut self,
        id: u32,
        inner: u32,
        depth: u8,
        shape: &mut Shape,
    ) -> Result<Shape, String> {
        self.there(id, inner)?;
        let too_deep = || format!("type {id} has types within types, more than {DEEPEST}");
        // By the way that was come here, so that the stack is bounded; and by what lies below.
        if depth >= DEEPEST {
            return Err(too_deep());
        }
        let inner = self.shape(inner, depth + 1)?;
        shape.height = shape.height.max(inner.height + 1);
        if shape.height > DEEPEST {
            return Err(too_deep());
        }
        Ok(inner)
    }

    fn there(&self, id: u32, other: u32) -> Result<(), String> {
        let last = self.entries.last();
        if other > last {
            return Err(format!(
                "type {id} refers to type {other}, the last is {last}"
            ));
        }
        Ok(())
    }
}

/// Where a member ends, in bytes. With `flag` its offset has the bits of a bit-field above.
fn end(flag: bool, offset: u32, size: u32) -> u64 {
    let (bits, width) = match flag {
        true => (offset & 0xff_ffff, offset >> 24),
        false => (offset, 0),
    };
    let start = u64::from(bits);
    if width > 0 || start % 8 != 0 {
        (start + u64::from(width)).div_ceil(8)
    } else {
        start / 8 + u64::from(size)
    }
}
