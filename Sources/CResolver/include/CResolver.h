// c-ares in plain types. Swift takes the module of ares.h, which includes headers of glibc, for the one that
// declares what is in those; so Swift does not see it. No logic.
#ifndef CRESOLVER_H
#define CRESOLVER_H

#include <stddef.h>
#include <stdint.h>

// CResolver.c asserts that they are c-ares's own.
#define CR_SUCCESS 0
#define CR_NO_DATA 1
#define CR_BAD_FORMAT 2
#define CR_SERVER_FAILED 3
#define CR_NOT_FOUND 4
#define CR_REFUSED 6
#define CR_BAD_NAME 8
#define CR_BAD_RESPONSE 10
#define CR_CONNECTION_REFUSED 11
#define CR_TIMEOUT 12
#define CR_CANCELLED 24
#define CR_DESCRIPTORS 16

struct cr_address {
    /// Network order; 4 or 16 of them.
    uint8_t bytes[16];
    uint32_t count;
    /// In seconds, 0 for one from /etc/hosts; not longer than any alias's on the way.
    int32_t time_to_live;
};

/// The addresses are there during the call only.
typedef void (*cr_answer)(void *context, int status, const struct cr_address *addresses, size_t count);

/// `servers` as "192.0.2.1:53,[2001:db8::1]:53", or NULL for those of the system. `mark` is SO_MARK of every socket
/// of the channel, 0 for none.
int cr_open(void **channel, const char *servers, uint32_t mark, int timeout_ms, int tries);
/// The name servers of /etc/resolv.conf as it is now. Returns how many there are in `servers`.
size_t cr_system_servers(struct cr_address *servers, size_t limit);
/// May answer before it returns; answers once in any case, from here, `cr_process`, `cr_cancel` or `cr_close`.
void cr_ask(void *channel, const char *host, size_t limit, cr_answer answer, void *context);
/// Bit i: descriptors[i] is waited for to be readable, bit i + 16: writable.
uint32_t cr_descriptors(void *channel, int descriptors[CR_DESCRIPTORS]);
/// Milliseconds until it is to be called without a descriptor; -1 for never.
int64_t cr_timeout(void *channel);
/// -1 for no descriptor.
void cr_process(void *channel, int readable, int writable);
void cr_cancel(void *channel);
void cr_close(void *channel);
const char *cr_text(int status);

#endif
