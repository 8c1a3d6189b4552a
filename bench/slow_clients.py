"""Latency of a server's quick answers while other clients keep slow connections open.

    python3 bench/slow_clients.py http://127.0.0.1:8080/healthz [--slow 1000] [--seconds 20]

Half of the slow connections send their headers a byte a second, half a body. Prints p50 and p99 before and with them."""
import argparse
import http.client
import socket
import threading
import time
import urllib.parse


def quick(host, port, path, seconds):
    """Milliseconds of each request, one after the other, each on a connection of its own."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        try:
            link = http.client.HTTPConnection(host, port, timeout=10)
            link.request("GET", path)
            link.getresponse().read()
            link.close()
            took.append(1e3 * (time.monotonic() - begin))
        except OSError:
            took.append(float("inf"))
        time.sleep(0.005)
    return sorted(took)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    o = parser.parse_args()
    url = urllib.parse.urlsplit(o.url)

    def report(name):
        took = quick(url.hostname, url.port, url.path, o.seconds)
        print(f"{name}: {len(took)} answers, p50 {took[len(took) // 2]:.2f} ms, p99 {took[int(len(took) * 0.99)]:.2f} ms, "
              f"{sum(t == float('inf') for t in took)} without", flush=True)
    report("alone")
    links, stop = [], threading.Event()

    def drip():
        while not stop.wait(1):
            for i, link in enumerate(links):
                try:
                    link.send(b"a")
                except OSError:  # the server had enough of it: another one comes
                    link.close()
                    links[i] = connect(i)

    def connect(i):
        link = socket.create_connection((url.hostname, url.port), timeout=10)
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        link.send(b"GET /" if i % 2 else head)
        return link
    for i in range(o.slow):
        links.append(connect(i))
    thread = threading.Thread(target=drip)
    thread.start()
    report(f"with {o.slow} slow connections")
    stop.set()
    thread.join()


if __name__ == "__main__":
    main()
