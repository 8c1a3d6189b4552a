// What bench/slow_clients.py compares graft serve with: cpp-httplib as it comes, which keeps a
// thread of its pool for each connection. Usage: thread_per_connection PORT
#include <httplib.h>

#include <cstdlib>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  httplib::Server server;
  server.Get("/healthz", [](const httplib::Request&, httplib::Response& reply) {
    reply.set_content("ok\n", "text/plain");
  });
  return server.listen("127.0.0.1", std::atoi(argv[1])) ? 0 : 1;
}
