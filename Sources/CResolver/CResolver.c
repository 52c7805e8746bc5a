#include "CResolver.h"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <ares.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(CR_SUCCESS == ARES_SUCCESS && CR_NO_DATA == ARES_ENODATA && CR_BAD_FORMAT == ARES_EFORMERR, "");
_Static_assert(CR_SERVER_FAILED == ARES_ESERVFAIL && CR_NOT_FOUND == ARES_ENOTFOUND, "");
_Static_assert(CR_REFUSED == ARES_EREFUSED && CR_BAD_NAME == ARES_EBADNAME, "");
_Static_assert(CR_BAD_RESPONSE == ARES_EBADRESP && CR_CONNECTION_REFUSED == ARES_ECONNREFUSED, "");
_Static_assert(CR_TIMEOUT == ARES_ETIMEOUT && CR_CANCELLED == ARES_ECANCELLED, "");
_Static_assert(CR_DESCRIPTORS == ARES_GETSOCK_MAXNUM, "");

// The library's own sockets, but that each has the mark before it is connected: also those that never send, by which
// it finds out which address this host has a way to. `mark` is the user data itself.
static ares_socket_t open_socket(int family, int type, int protocol, void *mark) {
    uint32_t value = (uint32_t)(uintptr_t)mark;
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0 || value == 0) return fd;
    if (setsockopt(fd, SOL_SOCKET, SO_MARK, &value, sizeof value) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int close_socket(ares_socket_t fd, void *mark) {
    (void)mark;
    return close(fd);
}

static int connect_socket(ares_socket_t fd, const struct sockaddr *address, ares_socklen_t length, void *mark) {
    (void)mark;
    return connect(fd, address, length);
}

static ares_ssize_t receive(
    ares_socket_t fd, void *bytes, size_t count, int flags, struct sockaddr *from, ares_socklen_t *length,
    void *mark) {
    (void)mark;
    return recvfrom(fd, bytes, count, flags, from, length);
}

static ares_ssize_t send_vector(ares_socket_t fd, const struct iovec *vector, int count, void *mark) {
    (void)mark;
    return writev(fd, vector, count);
}

static const struct ares_socket_functions marked_sockets = {
    open_socket, close_socket, connect_socket, receive, send_vector,
};

int cr_open(void **channel, const char *servers, uint32_t mark, int timeout_ms, int tries) {
    struct ares_options options = {.timeout = timeout_ms, .tries = tries, .lookups = "fb"};
    ares_channel made = NULL;
    int status = ares_init_options(&made, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS);
    if (status == ARES_SUCCESS && servers) {
        status = ares_set_servers_ports_csv(made, servers);
        if (status != ARES_SUCCESS) ares_destroy(made);
    }
    if (status != ARES_SUCCESS) return status;
    ares_set_socket_functions(made, &marked_sockets, (void *)(uintptr_t)mark);
    *channel = made;
    return status;
}

static size_t put_address(struct cr_address *to, int family, const void *bytes) {
    to->count = family == AF_INET ? 4 : family == AF_INET6 ? 16 : 0;
    memcpy(to->bytes, bytes, to->count);
    return to->count != 0;
}

size_t cr_system_servers(struct cr_address *servers, size_t limit) {
    ares_channel made = NULL;
    struct ares_addr_port_node *list = NULL;
    size_t count = 0;
    if (ares_init(&made) != ARES_SUCCESS) return 0;
    if (ares_get_servers_ports(made, &list) == ARES_SUCCESS) {
        for (struct ares_addr_port_node *node = list; node && count < limit; node = node->next)
            count += put_address(&servers[count], node->family, &node->addr);
        if (list) ares_free_data(list);
    }
    ares_destroy(made);
    return count;
}

struct question {
    cr_answer answer;
    void *context;
    size_t limit;
};

static void answered(void *argument, int status, int timeouts, struct ares_addrinfo *list) {
    struct question *question = argument;
    struct cr_address *addresses = NULL;
    size_t count = 0;
    (void)timeouts;
    if (status == ARES_SUCCESS && list) {
        int shortest = INT32_MAX;
        for (struct ares_addrinfo_cname *alias = list->cnames; alias; alias = alias->next)
            if (alias->ttl < shortest) shortest = alias->ttl;
        addresses = calloc(question->limit, sizeof *addresses);
        if (!addresses) status = ARES_ENOMEM;
        for (struct ares_addrinfo_node *node = list->nodes; addresses && node && count < question->limit;
             node = node->ai_next) {
            struct cr_address *address = &addresses[count];
            const void *bytes = node->ai_family == AF_INET
                                    ? (void *)&((struct sockaddr_in *)(void *)node->ai_addr)->sin_addr
                                    : (void *)&((struct sockaddr_in6 *)(void *)node->ai_addr)->sin6_addr;
            if (!put_address(address, node->ai_family, bytes)) continue;
            address->time_to_live = node->ai_ttl < shortest ? node->ai_ttl : shortest;
            // One with the highest bit set is zero (RFC 2181, section 8).
            if (address->time_to_live < 0) address->time_to_live = 0;
            count++;
        }
    }
    if (list) ares_freeaddrinfo(list);
    question->answer(question->context, status, addresses, count);
    free(addresses);
    free(question);
}

void cr_ask(void *channel, const char *host, size_t limit, cr_answer answer, void *context) {
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
    struct question *question = malloc(sizeof *question);
    if (!question) {
        answer(context, ARES_ENOMEM, NULL, 0);
        return;
    }
    *question = (struct question){answer, context, limit};
    ares_getaddrinfo(channel, host, NULL, &hints, answered, question);
}

uint32_t cr_descriptors(void *channel, int descriptors[CR_DESCRIPTORS]) {
    return (uint32_t)ares_getsock(channel, descriptors, CR_DESCRIPTORS);
}

int64_t cr_timeout(void *channel) {
    struct timeval time;
    if (!ares_timeout(channel, NULL, &time)) return -1;
    return (int64_t)time.tv_sec * 1000 + (time.tv_usec + 999) / 1000;
}

void cr_process(void *channel, int readable, int writable) {
    ares_process_fd(
        channel, readable < 0 ? ARES_SOCKET_BAD : readable, writable < 0 ? ARES_SOCKET_BAD : writable);
}

void cr_cancel(void *channel) { ares_cancel(channel); }

void cr_close(void *channel) { ares_destroy(channel); }

const char *cr_text(int status) { return ares_strerror(status); }
