/// No declarations: the library is for LD_PRELOAD, and replaces functions that libsodium declares.
#ifndef CNULLCIPHER_H
#define CNULLCIPHER_H
#endif
