// What Glibc's Swift module hides (it is read without _GNU_SOURCE) or leaves to macros and variadic calls:
// mirrors and thin wrappers, no logic. Every function returns what the system call returns, with errno set.
#ifndef CLINUX_H
#define CLINUX_H

#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

// Numbers that older kernel headers lack, or that Swift cannot import (casts, enums without a type).
#define CL_SOL_UDP 17
#define CL_UDP_SEGMENT 103
#define CL_UDP_GRO 104
#define CL_IP_TOS 1
#define CL_IP_PKTINFO 8
#define CL_IP_MTU_DISCOVER 10
#define CL_IP_PMTUDISC_PROBE 3
#define CL_IP_PMTUDISC_OMIT 5
#define CL_IP_RECVTOS 13
#define CL_IPV6_MTU_DISCOVER 23
#define CL_IPV6_PMTUDISC_WANT 1
#define CL_IPV6_PMTUDISC_PROBE 3
#define CL_IPV6_V6ONLY 26
#define CL_IPV6_RECVPKTINFO 49
#define CL_IPV6_PKTINFO 50
#define CL_IPV6_RECVTCLASS 66
#define CL_IPV6_TCLASS 67
#define CL_SO_MARK 36
#define CL_SO_BINDTODEVICE 25
#define CL_SO_SNDBUFFORCE 32
#define CL_SO_RCVBUFFORCE 33
#define CL_SO_REUSEPORT 15
#define CL_SO_BINDTOIFINDEX 62
#define CL_SO_ATTACH_FILTER 26
#define CL_SO_ATTACH_REUSEPORT_CBPF 51
#define CL_SOL_NETLINK 270
#define CL_NETLINK_GET_STRICT_CHK 12

#define CL_IFF_TUN 0x0001
#define CL_IFF_NO_PI 0x1000
#define CL_IFF_VNET_HDR 0x4000
#define CL_IFF_MULTI_QUEUE 0x0100
#define CL_TUN_F_CSUM 0x01
#define CL_TUN_F_TSO4 0x02
#define CL_TUN_F_TSO6 0x04
#define CL_TUN_F_TSO_ECN 0x08
#define CL_TUN_F_USO4 0x20
#define CL_TUN_F_USO6 0x40

/// struct mmsghdr; CLinux.c asserts that it has the same layout.
struct cl_mmsghdr {
    struct msghdr msg_hdr;
    unsigned int msg_len;
};

/// struct sock_filter: one instruction of a classic BPF program.
struct cl_sock_filter {
    uint16_t code;
    uint8_t jump_true;
    uint8_t jump_false;
    uint32_t operand;
};

/// `option` says what the program's result is: how many bytes of a packet are received, or the number of the socket to
/// deliver to, of those that share the port of `fd`.
int cl_attach_filter(int fd, int option, const struct cl_sock_filter *program, unsigned short count);
/// Bytes that wait to be received, and how many may, as the kernel accounts them; and datagrams dropped so far.
int cl_receive_queue(int fd, uint32_t *used, uint32_t *size, uint32_t *drops);
/// How many processors this process may run on.
int cl_processor_count(void);

int cl_recvmmsg(int fd, struct cl_mmsghdr *messages, unsigned int count, int flags);
int cl_sendmmsg(int fd, struct cl_mmsghdr *messages, unsigned int count, int flags);
int cl_accept(int fd);
int cl_peer_credentials(int fd, uint32_t *pid, uint32_t *uid, uint32_t *gid);

/// The multicast groups as bits, the first group the lowest.
int cl_netlink_bind(int fd, uint32_t groups);
/// `sender` is the port ID that the message came from: 0 is the kernel.
ssize_t cl_netlink_receive(int fd, void *bytes, size_t count, uint32_t *sender);

int cl_epoll_create(void);
int cl_epoll_add(int epoll, int fd, uint32_t events, uint64_t token);
int cl_epoll_modify(int epoll, int fd, uint32_t events, uint64_t token);
int cl_epoll_remove(int epoll, int fd);
/// At most 64 events, split into two arrays because struct epoll_event is packed.
int cl_epoll_wait(int epoll, uint64_t *tokens, uint32_t *events, int capacity, int timeout_ms);

int cl_eventfd(void);
int cl_timerfd(void);
/// Absolute nanoseconds of CLOCK_BOOTTIME; 0 disarms.
int cl_timerfd_arm(int fd, uint64_t nanoseconds);
int cl_signalfd(const sigset_t *signals);
/// The number of the signal read.
int cl_signalfd_read(int fd);
/// Two ends, closed on exec: what is written to the second is read from the first.
int cl_pipe(int *ends);
/// In the child, after the actions so far: close every descriptor from `first`; work in that folder.
int cl_spawn_close_from(posix_spawn_file_actions_t *actions, int first);
int cl_spawn_change_folder(posix_spawn_file_actions_t *actions, const char *path);
/// Readable once the process has ended; closed on exec (the kernel sees to that).
int cl_pidfd_open(pid_t process);
int cl_flock(int fd, int operation);
/// From here on the calling thread, and no other, opens files as this user. Linux keeps that user for each thread; the
/// calls of the C library change it for all of them.
int cl_take_file_user(uid_t user, gid_t group, const gid_t *groups, size_t count);
ssize_t cl_random(void *bytes, size_t count);

/// `name` holds 16 bytes and is replaced by the name the kernel gave.
int cl_tun_attach(int fd, char *name, int flags);
int cl_tun_inspect(int fd, char *name, int *flags);
int cl_tun_set_header_size(int fd, int size);
int cl_tun_set_offload(int fd, unsigned int flags);
/// A descriptor of the network namespace that the device is in.
int cl_tun_namespace(int fd);

/* Of the terminal; 0 or less where it is none. */
int cl_terminal_columns(int fd);

/* Areas that malloc takes from, at most. By default it reserves 64 MB and more of address space for each thread. */
void cl_limit_arenas(int count);

int cl_set_thread_name(const char *name);
/* PR_SET_DUMPABLE 0: no core file, no debugger of the same user. */
void cl_set_undumpable(void);
/// Both are static strings, or NULL for a number that is no errno.
const char *cl_errno_name(int code);
const char *cl_errno_text(int code);

/// Writes one control message at `offset` of `buffer`, and returns the offset after it.
static inline size_t cl_control_put(
    void *buffer, size_t offset, int level, int type, const void *data, size_t size) {
    struct cmsghdr *header = (struct cmsghdr *)((char *)buffer + offset);
    memset(header, 0, CMSG_SPACE(size));
    header->cmsg_len = CMSG_LEN(size);
    header->cmsg_level = level;
    header->cmsg_type = type;
    memcpy(CMSG_DATA(header), data, size);
    return offset + CMSG_SPACE(size);
}

static inline struct cmsghdr *cl_control_first(struct msghdr *message) { return CMSG_FIRSTHDR(message); }
static inline struct cmsghdr *cl_control_next(struct msghdr *message, struct cmsghdr *current) {
    return CMSG_NXTHDR(message, current);
}
static inline const void *cl_control_data(struct cmsghdr *header) { return CMSG_DATA(header); }
static inline size_t cl_control_size(const struct cmsghdr *header) {
    return header->cmsg_len < CMSG_LEN(0) ? 0 : header->cmsg_len - CMSG_LEN(0);
}

#endif
