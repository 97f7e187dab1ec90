//! All that is done with BTF, done with any bytes: for `crate::fuzz`.

use agent_common::{offsets::Offsets, probes::PROBES};
use aya::{Btf, Endianness};
use aya_obj::btf::BtfKind;

use super::{FunctionIds, Vetted};
use crate::kernel::types::KernelTypes;

/// Functions and tracepoints that programs are attached to, by their kind.
const ATTACHED: [(&str, BtfKind); 3] = [
    ("vfs_read", BtfKind::Func),
    ("btf_trace_block_rq_issue", BtfKind::Typedef),
    ("task_struct", BtfKind::Struct),
];

/// Whether it is BTF; then all is looked up in it that is looked up in a kernel's.
#[must_use]
pub fn exercise(bytes: &[u8]) -> bool {
    // So does aya's loader with the kernel's as it is made, for itself and before anybody vets it.
    let _parsed = Btf::parse(bytes, Endianness::default());
    let Ok(btf) = Vetted::new(bytes.to_vec()) else {
        return false;
    };
    let Ok(aya) = btf.aya() else {
        return false;
    };
    for (name, kind) in ATTACHED {
        let _missing = aya.id_by_type_name_kind(name, kind);
    }
    let functions = FunctionIds::find(&btf, ["vfs_read", "vfs_write"]).and_then(|ids| ids.btf());
    let functions = functions.expect("functions of BTF that is vetted");
    for name in ["vfs_read", "vfs_write"] {
        // aya gives up at a function before it whose name is no text.
        if let Ok(id) = aya.id_by_type_name_kind(name, BtfKind::Func) {
            let few = functions.id_by_type_name_kind(name, BtfKind::Func);
            assert_eq!(few.ok(), Some(id), "{name}");
        }
    }
    let Ok(types) = KernelTypes::parse(&btf) else {
        return false;
    };
    let _offsets = Offsets::new(|structure, path| types.offset(structure, path));
    for constant in PROBES.iter().flat_map(|probe| probe.constants) {
        use agent_common::probes::Value;
        // The others are not read from BTF.
        if !matches!(constant.value, Value::KprobeSymbol(_)) {
            let _missing = types.constant(constant);
        }
    }
    let _missing = types.tracepoint_arguments("block_rq_issue");
    let _missing = types.enumerator("io_cgrp_id");
    true
}
