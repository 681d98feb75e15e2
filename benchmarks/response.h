/* Responses to HTTP that are short and have ended when their text has. */
#ifndef RESPONSE_H
#define RESPONSE_H
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Return where the body begins, NULL if the response (which ends with a 0) is not whole yet. */
static const char *body_of(const char *response, size_t length)
{
    const char *body = strstr(response, "\r\n\r\n"), *field;
    if (!body)
        return NULL;
    body += 4;
    if ((field = strcasestr(response, "\r\ncontent-length:")) && field < body)
        return response + length >= body + atol(field + 17) ? body : NULL;
    /* In chunks: the text is so short that it is all in the first. */
    if (!strstr(body - 2, "\r\n0\r\n\r\n"))
        return NULL;
    return strstr(body, "\r\n") + 2;
}

/* Return the first number in the body, -1 if it has none. */
static long number_in(const char *body)
{
    while (*body && !isdigit((unsigned char)*body))
        body++;
    return *body ? atol(body) : -1;
}
#endif
