// A cipher that encrypts nothing, for vgw-bench alone: it says how fast vgwd would be if encryption were free.
//
// It is a library to preload rather than a build option, for two reasons. What is measured is the very binary
// that is released, so the ceiling cannot come from another build of the loop. And no vgwd that anybody runs
// has a null cipher in it, not even one that is switched off.
//
// Both ends must have it: a handshake then "succeeds" between any two keys. Only the functions that vgwd
// calls are here; when it calls another one, that one must be added, or the ceiling silently measures the
// cipher. Hence the line on standard error once a data packet has come by, which vgw-bench insists on.
#include "CNullCipher.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { tag_size = 16 };

// Read in every call and written once, so its cache line stays shared between the threads.
static bool told;

// Handshake messages have associated data, data packets have none.
static void tell(unsigned long long associated) {
    static const char line[] = "null cipher: this process encrypts nothing\n";
    if (associated != 0 || __atomic_load_n(&told, __ATOMIC_RELAXED)) return;
    __atomic_store_n(&told, true, __ATOMIC_RELAXED);
    ssize_t ignored = write(STDERR_FILENO, line, sizeof line - 1);
    (void)ignored;
}

static int seal(
    unsigned char *c, unsigned long long *c_size, const unsigned char *m, unsigned long long m_size,
    unsigned long long associated) {
    tell(associated);
    if (m_size > 0) memmove(c, m, m_size);
    memset(c + m_size, 0, tag_size);
    if (c_size) *c_size = m_size + tag_size;
    return 0;
}

static int open_(
    unsigned char *m, unsigned long long *m_size, const unsigned char *c, unsigned long long c_size,
    unsigned long long associated) {
    tell(associated);
    if (c_size < tag_size) return -1;
    if (c_size > tag_size && m) memmove(m, c, c_size - tag_size);
    if (m_size) *m_size = c_size - tag_size;
    return 0;
}

// The data path's ChaCha20-Poly1305 is made of these: a key stream of zeros makes its one pass a copy.

int crypto_stream_chacha20_ietf(
    unsigned char *c, unsigned long long size, const unsigned char *n, const unsigned char *key) {
    (void)c, (void)size, (void)n, (void)key;
    tell(0);
    return 0;
}

int crypto_onetimeauth_poly1305_init(void *state, const unsigned char *key) {
    (void)state, (void)key;
    return 0;
}

int crypto_onetimeauth_poly1305_update(void *state, const unsigned char *m, unsigned long long size) {
    (void)state, (void)m, (void)size;
    return 0;
}

int crypto_onetimeauth_poly1305_final(void *state, unsigned char *tag) {
    (void)state;
    memset(tag, 0, tag_size);
    return 0;
}

int crypto_verify_16(const unsigned char *x, const unsigned char *y) {
    (void)x, (void)y;
    return 0;
}

int crypto_aead_chacha20poly1305_ietf_encrypt(
    unsigned char *c, unsigned long long *c_size, const unsigned char *m, unsigned long long m_size,
    const unsigned char *ad, unsigned long long ad_size, const unsigned char *nsec, const unsigned char *npub,
    const unsigned char *key) {
    (void)ad, (void)nsec, (void)npub, (void)key;
    return seal(c, c_size, m, m_size, ad_size);
}

int crypto_aead_chacha20poly1305_ietf_decrypt(
    unsigned char *m, unsigned long long *m_size, unsigned char *nsec, const unsigned char *c,
    unsigned long long c_size, const unsigned char *ad, unsigned long long ad_size, const unsigned char *npub,
    const unsigned char *key) {
    (void)ad, (void)nsec, (void)npub, (void)key;
    return open_(m, m_size, c, c_size, ad_size);
}

int crypto_aead_aes256gcm_encrypt_afternm(
    unsigned char *c, unsigned long long *c_size, const unsigned char *m, unsigned long long m_size,
    const unsigned char *ad, unsigned long long ad_size, const unsigned char *nsec, const unsigned char *npub,
    const void *state) {
    (void)ad, (void)nsec, (void)npub, (void)state;
    return seal(c, c_size, m, m_size, ad_size);
}

int crypto_aead_aes256gcm_decrypt_afternm(
    unsigned char *m, unsigned long long *m_size, unsigned char *nsec, const unsigned char *c,
    unsigned long long c_size, const unsigned char *ad, unsigned long long ad_size, const unsigned char *npub,
    const void *state) {
    (void)ad, (void)nsec, (void)npub, (void)state;
    return open_(m, m_size, c, c_size, ad_size);
}
