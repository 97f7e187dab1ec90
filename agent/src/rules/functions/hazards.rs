//! Functions on which a wait would stop the machine.

use std::sync::LazyLock;

use glob::Pattern;

/// What names them, as globs, and why none is delayed.
const UNSAFE: [(&str, &str); 14] = [
    (
        "bpf_* __bpf_* *_bpf_prog* htab_* array_map_* percpu_array_* trie_* pcpu_freelist_* __htab_*",
        "the injector's own programs and maps run through it",
    ),
    (
        "kprobe* *_kprobe* kretprobe* ftrace_* __ftrace_* trace_* __trace_* perf_* __perf_* ring_buffer_* \
         rb_* tracing_* uprobe* rethook_* fprobe_* tracepoint_* text_poke* arch_ftrace_* optimized_callback \
         aggr_*handler",
        "it is part of how the injector gets at functions",
    ),
    (
        "*spin_lock* *spin_unlock* *spin_trylock* *read_lock* *write_lock* *read_unlock* *write_unlock* \
         *_raw_*lock* native_queued_* queued_* __pv_queued_* mcs_* osq_* lock_acquire* lock_release* \
         lockdep_*",
        "others spin on the lock for as long as it waits",
    ),
    (
        "schedule __schedule* schedule_* preempt_schedule* preempt_count_* sched_* __sched_* try_to_wake_up* \
         ttwu_* wake_up_*process* default_wake_function autoremove_wake_function pick_*_task* enqueue_* \
         dequeue_* put_prev_* set_next_* context_switch* finish_task_switch* update_rq_* update_curr* \
         resched_* *_task_fair *_task_rt *_task_dl load_balance* rebalance_* scheduler_tick* task_tick_* \
         prepare_task_switch*",
        "the scheduler holds a CPU's run queue there, and no task runs on it meanwhile",
    ),
    (
        "ktime_* __ktime_* timekeeping_* read_tsc* rdtsc* sched_clock* native_sched_clock* local_clock* \
         pvclock_* kvm_clock_* read_hpet arch_counter_* clockevents_* clocksource_* tick_* hrtimer_* \
         __hrtimer_* update_wall_time update_process_times do_timer jiffies_* get_cycles* hyperv_*clock*",
        "the wait itself reads the clock",
    ),
    (
        "rcu_* __rcu_* call_rcu* synchronize_rcu* synchronize_srcu* srcu_* __srcu_* kfree_rcu* kvfree_*rcu* \
         note_gp_* force_qs_* ct_* context_tracking_*",
        "RCU would stall, and with it all that the kernel has to free",
    ),
    (
        "asm_* exc_* __x86_indirect_* __x86_return_* error_entry* paranoid_* entry_* *_entry_from_user_mode* \
         irqentry_* syscall_enter_* syscall_exit_* syscall_return_* do_syscall_* x64_sys_call ret_from_* el0* \
         el1* do_el0* vectors* do_error_trap do_page_fault* do_user_addr_fault* handle_mm_fault do_mem_abort \
         do_int3* do_debug* brk_handler arm64_*trap*",
        "it enters or leaves the kernel, with interrupts off",
    ),
    (
        "irq_* __irq_* handle_irq* handle_*_irq* __handle_irq* generic_handle_* do_IRQ* common_interrupt* \
         __common_interrupt* sysvec_* __sysvec_* gic_* apic_* x2apic_* native_apic_* smp_* __smp_* \
         flush_smp_* generic_smp_* send_*ipi* native_send_* flush_tlb_* native_flush_tlb* do_softirq* \
         __do_softirq* handle_softirqs* raise_softirq* __raise_softirq* tasklet_* run_timer_* timer_* csd_* \
         do_idle cpu_idle* cpuidle_* default_idle* native_halt native_safe_halt arch_cpu_idle* acpi_idle_* \
         intel_idle*",
        "it runs in interrupts or for other CPUs, which wait for it",
    ),
    (
        "nmi_* *_nmi *_nmi_* default_do_nmi mce_* do_machine_check* watchdog_* softlockup_* hardlockup_* \
         panic* crash_* __crash_* machine_* native_machine_* emergency_* die __die* oops_* do_exit \
         make_task_dead bug_handler report_bug __warn* warn_*",
        "it is what is left when nothing else works, or tells that the CPU hangs",
    ),
    (
        "printk* _printk* vprintk* console_* __console_* serial8250_* uart_* pl011_* nbcon_* prb_* _prb_* \
         log_store devkmsg_* dump_stack*",
        "messages of the kernel go through it, those of a hang too",
    ),
    (
        "memcpy* __memcpy* memset* __memset* memmove* __memmove* memcmp* strlen* strcmp* strncpy* strscpy* \
         copy_user_* rep_movs_* rep_stos_* clear_page* copy_page* csum_partial* copy_from_kernel_nofault* \
         copy_from_user_nofault* strncpy_from_* _copy_*_user* copy_*_user_* copy_page_from_iter* \
         __arch_copy_* fault_in_* ex_handler_* fixup_exception* search_exception_* probe_read_*",
        "everything copies through it, the injector's programs included",
    ),
    (
        "kmalloc* __kmalloc* kfree* kmem_cache_* ___slab_* __slab_* slab_* alloc_pages* __alloc_pages* \
         __free_pages* free_unref_* get_page_from_freelist rmqueue* __rmqueue*",
        "all memory comes from there, with locks held that others spin for",
    ),
    (
        "stop_machine* __stop_* multi_cpu_stop cpu_stop* cpuhp_* migration_* idle_* play_dead* \
         secondary_startup* start_secondary hypervisor_* xen_* kvm_* __kvm_* vmx_* svm_* pv_* acpi_* efi_* \
         resume_* suspend_* mwait_* native_* paravirt_*",
        "CPUs are stopped, started or switched there",
    ),
    (
        "__fentry__ __cfi_* __pfx_* __kcfi_* __kasan_* kasan_* __asan_* __ubsan_* __kcsan_* kcsan_* kmsan_* \
         __kmsan_* __sanitizer_* kcov_* write_comp_data this_cpu_* debug_smp_* __this_cpu_* __get_user_* \
         __put_user_* stackleak_* stack_trace_* unwind_* __unwind_* arch_stack_walk* module_*_notifier* \
         kallsyms_*",
        "the compiler calls it from everywhere, or it is no function of its own",
    ),
];

/// As [`UNSAFE`], read once.
static PATTERNS: LazyLock<Vec<(Pattern, &str)>> = LazyLock::new(|| {
    UNSAFE
        .iter()
        .flat_map(|(globs, reason)| globs.split(' ').map(move |glob| (glob, *reason)))
        .filter_map(|(glob, reason)| Some((Pattern::new(glob).ok()?, reason)))
        .collect()
});

/// Why a function must not be delayed, if so.
#[must_use]
pub fn hazard(function: &str) -> Option<&'static str> {
    if function.contains(".cold") {
        return Some("it is a part of a function that nobody calls by itself");
    }
    // What the compiler made of a function is named NAME.isra.0.
    let name = function.split('.').next().unwrap_or(function);
    PATTERNS
        .iter()
        .find(|(pattern, _)| pattern.matches(name))
        .map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_glob_is_one() {
        let globs = UNSAFE.iter().flat_map(|(globs, _)| globs.split(' '));
        assert_eq!(globs.count(), PATTERNS.len());
        assert!(
            PATTERNS
                .iter()
                .all(|(pattern, _)| !pattern.as_str().is_empty())
        );
    }

    #[test]
    fn the_injectors_own_path_is_known_from_the_rest() {
        for name in [
            "schedule",
            "__schedule",
            "ktime_get",
            "rcu_read_unlock_strict",
            "bpf_get_current_task",
            "perf_trace_run_bpf_submit",
            "asm_exc_page_fault",
            "nmi_handle",
            "_printk",
            "memcpy",
            "kmalloc_trace",
            "do_exit",
            "try_to_wake_up",
            "_raw_spin_unlock_irqrestore.cold",
        ] {
            assert!(hazard(name).is_some(), "{name}");
        }
        for name in [
            "vfs_read",
            "vfs_write",
            "vfs_fsync_range",
            "do_sys_openat2",
            "blk_mq_start_request",
            "ext4_file_write_iter",
            "xfs_file_fsync",
            "tcp_sendmsg",
            "nfs_file_read",
            "do_unlinkat",
            "submit_bio",
            "filemap_fault",
            "path_openat",
            "inode_permission",
        ] {
            assert_eq!(hazard(name), None, "{name}");
        }
    }
}
