"""The conformance kit: whether a server keeps PROTOCOL.md.

A list of numbered cases, each one rule of the text. They speak to a server over a socket, with the
codec's own helpers where a frame is legal and with bytes put together by hand where it is not; they
look only at what comes back. Nothing here knows our server: a second one is judged by the same.

    case.py    what a case is, how it fails, how it is skipped
    frames.py  headers that the codec would not make
    watch.py   what holds for every frame of a server, in every case
    peer.py    one connection whose every wait is bounded
    target.py  the server under test: its address, its limits, names to use, what is to be removed
    cases/     the cases, a file for each part of the text
    runner.py  one case after another; report.py and junit.py say what came of it
"""
