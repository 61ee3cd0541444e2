/* The echo server of the lesson on the socket API: accept, talk, close, accept. Usage: echo HOST PORT */
#include <arpa/inet.h>
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static void talk(int client) {
    const char *greeting = "Welcome to the Reactor Server.\n"
                           "Send me text lines and conclude with the BYE command.\n";
    char line[1024], reply[1100];
    write(client, greeting, strlen(greeting));
    for (;;) {
        ssize_t count = read(client, line, sizeof line - 1);
        if (count <= 0) {
            return;
        }
        line[count] = '\0';
        line[strcspn(line, "\r\n")] = '\0';
        for (char *c = line; *c != '\0'; c++) {
            *c = toupper((unsigned char)*c);
        }
        snprintf(reply, sizeof reply, "> %s\n", line);
        write(client, reply, strlen(reply));
        if (strcasecmp(line, "bye") == 0) {
            return;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    /* Else the first client that is gone while it is written to ends the server. */
    signal(SIGPIPE, SIG_IGN);
    int receptionist = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    if (bind(receptionist, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("bind");
        return 1;
    }
    listen(receptionist, 128);
    for (;;) {
        int client = accept(receptionist, NULL, NULL);
        talk(client);
        close(client);
    }
}
