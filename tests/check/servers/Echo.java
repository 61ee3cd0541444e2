import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** The echo server with a thread for each client. Usage: java Echo.java HOST PORT */
public class Echo {
  public static void main(String[] args) throws IOException {
    int port = Integer.parseInt(args[1]);
    ServerSocket receptionist = new ServerSocket(port, 50, InetAddress.getByName(args[0]));
    while (true) {
      Socket client = receptionist.accept();
      new Thread(() -> talk(client)).start();
    }
  }

  private static void talk(Socket client) {
    try {
      BufferedReader in = new BufferedReader(new InputStreamReader(client.getInputStream()));
      PrintWriter out = new PrintWriter(client.getOutputStream());
      out.println("Welcome to the Reactor Server.");
      out.println("Send me text lines and conclude with the BYE command.");
      out.flush();
      String line;
      while ((line = in.readLine()) != null) {
        out.println("> " + line.toUpperCase());
        out.flush();
        if (line.equalsIgnoreCase("bye")) {
          break;
        }
      }
      client.close();
    } catch (IOException e) {
      System.err.println(e.getMessage());
    }
  }
}
