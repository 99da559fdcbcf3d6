"""What the filter answers to each system call that is not decided by its arguments.

Every call of ``syscall_numbers.py`` is in one class, here or in ``seccomp.py``; a test counts them.
"""

from __future__ import annotations

import errno

ALLOWED = """
accept accept4 access alarm arch_prctl brk capget capset chdir clock_getres clock_gettime
clock_nanosleep close close_range copy_file_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fallocate fchdir fdatasync flock fork fstat fstatfs fsync ftruncate futex
futex_waitv get_mempolicy getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups
getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid inotify_rm_watch
io_cancel io_destroy io_getevents io_pgetevents io_submit ioprio_get landlock_add_rule
landlock_create_ruleset landlock_restrict_self link linkat listen lseek lstat madvise mbind
membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mq_getsetattr
mq_notify mq_timedreceive mq_timedsend mremap msync munlock munlockall munmap nanosleep newfstatat
pause pidfd_open pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll pread64 preadv preadv2
pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg
recvmsg remap_file_pages rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_yield seccomp select sendfile sendmmsg sendmsg sendto set_mempolicy
set_mempolicy_home_node set_robust_list set_tid_address setitimer setpgid setrlimit setsid
setsockopt shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync
sync_file_range syncfs sysinfo tee time timer_create timer_delete timer_getoverrun timer_gettime
timer_settime timerfd_create timerfd_gettime timerfd_settime times umask uname unlink unlinkat
vfork vmsplice wait4 waitid write writev
"""

REFUSED = """
acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init
fanotify_mark finit_module fsconfig fsmount fsopen fspick init_module ioperm iopl kcmp
kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount name_to_handle_at
nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise
process_mrelease process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot request_key
sched_setattr setdomainname setfsgid setfsuid setgid setgroups sethostname setns setregid setresgid
setresuid setreuid settimeofday setuid swapoff swapon syslog umount2 unshare userfaultfd vhangup
"""
"""EPERM: other processes, mounts, the kernel itself, the machine's clocks and names."""

ABSENT = """
_sysctl afs_syscall clone3 create_module epoll_ctl_old epoll_wait_old get_kernel_syms
get_thread_area getpmsg io_setup io_uring_enter io_uring_register io_uring_setup
memfd_secret modify_ldt openat2 putpmsg query_module security set_thread_area sysfs
tuxcall uselib ustat vserver
"""
"""ENOSYS: the filter cannot see into what these are told, or nobody uses them any more.

The C library falls back from clone3 to clone and from openat2 to openat, whose arguments it can."""

FEIGNED = {
    "sched_setparam": 0,
    "sched_setscheduler": 0,
}
"""Answered by success without effect: libzmq ends the process when these fail."""

SHARED_WITH_USER: dict[str, int] = {
    # Sockets of other programs; a listener of ours would be a trap for them.
    **dict.fromkeys(("bind", "connect"), errno.EACCES),
    # IPC that has no files, and so no rights that Landlock could take.
    **dict.fromkeys(
        (
            "mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop "
            "shmat shmctl shmdt shmget"
        ).split(),
        errno.ENOSYS,
    ),
    # Who opens which file, of any directory with read permission.
    **dict.fromkeys(("inotify_add_watch", "inotify_init", "inotify_init1"), errno.ENOSYS),
    # Owner and times of any file of the user's. A process without privileges cannot change owners
    # anyway; times are told as set, because copying a file ends in an error otherwise.
    **dict.fromkeys(("chown", "fchown", "fchownat", "lchown"), errno.EPERM),
    **dict.fromkeys(("futimesat", "utime", "utimensat", "utimes"), 0),
    # What a file system without extended attributes says; also reading, as they hold
    # the addresses that files were downloaded from.
    **dict.fromkeys(
        (
            "fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr "
            "lremovexattr lsetxattr removexattr setxattr"
        ).split(),
        errno.EOPNOTSUPP,
    ),
}
"""Where the child shares files, sockets and IPC with the user's programs; Landlock covers none."""
