# The echo server with a thread for each client, as one writes it after the lesson on threads.
# Usage: python3 threading_echo.py HOST PORT
import socket
import sys
import threading


def talk(client):
    lines = client.makefile("r", encoding="utf-8")
    client.sendall(b"Welcome to the Reactor Server.\n")
    client.sendall(b"Send me text lines and conclude with the BYE command.\n")
    for line in lines:
        line = line.rstrip("\n")
        client.sendall(("> " + line.upper() + "\n").encode())
        if line.lower() == "bye":
            break
    lines.close()
    client.close()


server = socket.socket()
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen()
while True:
    client, _ = server.accept()
    threading.Thread(target=talk, args=(client,), daemon=True).start()
