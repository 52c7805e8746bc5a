#define _GNU_SOURCE
#include "CLinux.h"

#include <malloc.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif

_Static_assert(sizeof(struct cl_mmsghdr) == sizeof(struct mmsghdr), "mmsghdr");
_Static_assert(offsetof(struct cl_mmsghdr, msg_len) == offsetof(struct mmsghdr, msg_len), "mmsghdr");
_Static_assert(sizeof(struct cl_sock_filter) == sizeof(struct sock_filter), "sock_filter");
_Static_assert(offsetof(struct cl_sock_filter, operand) == offsetof(struct sock_filter, k), "sock_filter");
// The offsets that DatagramAddress.swift reads and writes.
_Static_assert(offsetof(struct sockaddr_in, sin_port) == 2, "sockaddr_in");
_Static_assert(offsetof(struct sockaddr_in, sin_addr) == 4, "sockaddr_in");
_Static_assert(sizeof(struct sockaddr_in) == 16, "sockaddr_in");
_Static_assert(offsetof(struct sockaddr_in6, sin6_port) == 2, "sockaddr_in6");
_Static_assert(offsetof(struct sockaddr_in6, sin6_addr) == 8, "sockaddr_in6");
_Static_assert(offsetof(struct sockaddr_in6, sin6_scope_id) == 24, "sockaddr_in6");
_Static_assert(sizeof(struct sockaddr_in6) == 28, "sockaddr_in6");
_Static_assert(offsetof(struct in_pktinfo, ipi_spec_dst) == 4, "in_pktinfo");
_Static_assert(sizeof(struct in_pktinfo) == 12, "in_pktinfo");
_Static_assert(offsetof(struct in6_pktinfo, ipi6_ifindex) == 16, "in6_pktinfo");
_Static_assert(sizeof(struct in6_pktinfo) == 20, "in6_pktinfo");
_Static_assert(CL_IP_PKTINFO == IP_PKTINFO && CL_IP_TOS == IP_TOS, "ip");
_Static_assert(CL_IP_MTU_DISCOVER == IP_MTU_DISCOVER && CL_IP_PMTUDISC_OMIT == IP_PMTUDISC_OMIT, "ip");
_Static_assert(CL_IP_PMTUDISC_PROBE == IP_PMTUDISC_PROBE && CL_IP_RECVTOS == IP_RECVTOS, "ip");
_Static_assert(CL_IPV6_MTU_DISCOVER == IPV6_MTU_DISCOVER, "ipv6");
_Static_assert(CL_IPV6_PMTUDISC_WANT == IPV6_PMTUDISC_WANT, "ipv6");
_Static_assert(CL_IPV6_PMTUDISC_PROBE == IPV6_PMTUDISC_PROBE, "ipv6");
_Static_assert(CL_IPV6_RECVTCLASS == IPV6_RECVTCLASS, "ipv6");
_Static_assert(CL_IPV6_PKTINFO == IPV6_PKTINFO && CL_IPV6_RECVPKTINFO == IPV6_RECVPKTINFO, "ipv6");
_Static_assert(CL_IPV6_TCLASS == IPV6_TCLASS && CL_IPV6_V6ONLY == IPV6_V6ONLY, "ipv6");
_Static_assert(CL_SO_MARK == SO_MARK && CL_SO_BINDTODEVICE == SO_BINDTODEVICE, "socket");
_Static_assert(CL_SO_SNDBUFFORCE == SO_SNDBUFFORCE && CL_SO_RCVBUFFORCE == SO_RCVBUFFORCE, "socket");
_Static_assert(CL_SO_REUSEPORT == SO_REUSEPORT, "socket");
_Static_assert(CL_SO_BINDTOIFINDEX == SO_BINDTOIFINDEX, "socket");
_Static_assert(CL_SO_ATTACH_FILTER == SO_ATTACH_FILTER, "socket");
_Static_assert(CL_SO_ATTACH_REUSEPORT_CBPF == SO_ATTACH_REUSEPORT_CBPF, "socket");

int cl_recvmmsg(int fd, struct cl_mmsghdr *messages, unsigned int count, int flags) {
    return recvmmsg(fd, (struct mmsghdr *)messages, count, flags, NULL);
}

int cl_attach_filter(int fd, int option, const struct cl_sock_filter *program, unsigned short count) {
    struct sock_fprog filter = {.len = count, .filter = (struct sock_filter *)program};
    return setsockopt(fd, SOL_SOCKET, option, &filter, sizeof filter);
}

int cl_receive_queue(int fd, uint32_t *used, uint32_t *size, uint32_t *drops) {
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof memory;
    int result = getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &length);
    *used = memory[SK_MEMINFO_RMEM_ALLOC];
    *size = memory[SK_MEMINFO_RCVBUF];
    *drops = memory[SK_MEMINFO_DROPS];
    return result;
}

int cl_processor_count(void) {
    cpu_set_t processors;
    return sched_getaffinity(0, sizeof processors, &processors) == 0 ? CPU_COUNT(&processors) : 1;
}

int cl_sendmmsg(int fd, struct cl_mmsghdr *messages, unsigned int count, int flags) {
    return sendmmsg(fd, (struct mmsghdr *)messages, count, flags);
}

int cl_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }

int cl_peer_credentials(int fd, uint32_t *pid, uint32_t *uid, uint32_t *gid) {
    struct ucred credentials = {0};
    socklen_t size = sizeof credentials;
    int result = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
    *pid = (uint32_t)credentials.pid;
    *uid = credentials.uid;
    *gid = credentials.gid;
    return result;
}

int cl_netlink_bind(int fd, uint32_t groups) {
    struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = groups};
    return bind(fd, (struct sockaddr *)&name, sizeof name);
}

ssize_t cl_netlink_receive(int fd, void *bytes, size_t count, uint32_t *sender) {
    struct sockaddr_nl name = {0};
    socklen_t size = sizeof name;
    ssize_t result = recvfrom(fd, bytes, count, 0, (struct sockaddr *)&name, &size);
    *sender = name.nl_pid;
    return result;
}

int cl_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

static int epoll_change(int epoll, int operation, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data.u64 = token};
    return epoll_ctl(epoll, operation, fd, &event);
}

int cl_epoll_add(int epoll, int fd, uint32_t events, uint64_t token) {
    return epoll_change(epoll, EPOLL_CTL_ADD, fd, events, token);
}

int cl_epoll_modify(int epoll, int fd, uint32_t events, uint64_t token) {
    return epoll_change(epoll, EPOLL_CTL_MOD, fd, events, token);
}

int cl_epoll_remove(int epoll, int fd) { return epoll_change(epoll, EPOLL_CTL_DEL, fd, 0, 0); }

int cl_epoll_wait(int epoll, uint64_t *tokens, uint32_t *events, int capacity, int timeout_ms) {
    struct epoll_event ready[64];
    int count = epoll_wait(epoll, ready, capacity < 64 ? capacity : 64, timeout_ms);
    for (int i = 0; i < count; i++) {
        tokens[i] = ready[i].data.u64;
        events[i] = ready[i].events;
    }
    return count;
}

int cl_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

int cl_timerfd(void) { return timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK); }

int cl_timerfd_arm(int fd, uint64_t nanoseconds) {
    struct itimerspec when = {0};
    when.it_value.tv_sec = (time_t)(nanoseconds / 1000000000);
    when.it_value.tv_nsec = (long)(nanoseconds % 1000000000);
    return timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL);
}

int cl_signalfd(const sigset_t *signals) { return signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK); }

int cl_signalfd_read(int fd) {
    struct signalfd_siginfo info;
    ssize_t count = read(fd, &info, sizeof info);
    return count < (ssize_t)sizeof info ? -1 : (int)info.ssi_signo;
}

int cl_pipe(int *ends) { return pipe2(ends, O_CLOEXEC); }

int cl_spawn_close_from(posix_spawn_file_actions_t *actions, int first) {
    return posix_spawn_file_actions_addclosefrom_np(actions, first);
}

int cl_spawn_change_folder(posix_spawn_file_actions_t *actions, const char *path) {
    return posix_spawn_file_actions_addchdir_np(actions, path);
}

// As a system call: Glibc has it since 2.36 only.
int cl_pidfd_open(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

// Swift takes `flock` for the struct of that name.
int cl_flock(int fd, int operation) { return flock(fd, operation); }

int cl_take_file_user(uid_t user, gid_t group, const gid_t *groups, size_t count) {
    if (syscall(SYS_setgroups, count, groups) != 0) return -1;
    setfsgid(group);
    setfsuid(user);
    // They tell no error but by what holds afterwards.
    if ((gid_t)setfsgid((gid_t)-1) == group && (uid_t)setfsuid((uid_t)-1) == user) return 0;
    errno = EPERM;
    return -1;
}

ssize_t cl_random(void *bytes, size_t count) { return getrandom(bytes, count, 0); }

int cl_tun_attach(int fd, char *name, int flags) {
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = (short)flags;
    int result = ioctl(fd, TUNSETIFF, &request);
    memcpy(name, request.ifr_name, IFNAMSIZ);
    return result;
}

int cl_tun_inspect(int fd, char *name, int *flags) {
    struct ifreq request = {0};
    int result = ioctl(fd, TUNGETIFF, &request);
    memcpy(name, request.ifr_name, IFNAMSIZ);
    *flags = (unsigned short)request.ifr_flags;
    return result;
}

int cl_tun_set_header_size(int fd, int size) { return ioctl(fd, TUNSETVNETHDRSZ, &size); }
int cl_tun_set_offload(int fd, unsigned int flags) { return ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags); }
int cl_tun_namespace(int fd) { return ioctl(fd, TUNGETDEVNETNS); }

int cl_terminal_columns(int fd) {
    struct winsize size = {0};
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : -1;
}

int cl_set_thread_name(const char *name) {
    char shortened[16] = {0};
    strncpy(shortened, name, sizeof shortened - 1);
    return pthread_setname_np(pthread_self(), shortened);
}

const char *cl_errno_name(int code) { return strerrorname_np(code); }
const char *cl_errno_text(int code) { return strerrordesc_np(code); }

void cl_limit_arenas(int count) { mallopt(M_ARENA_MAX, count); }

void cl_set_undumpable(void) { prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }
