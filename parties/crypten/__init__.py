"""CrypTen's two parties as processes of this machine, for `hush bench --protocol crypten` and `hush.compare`.

`pair` starts them and asks them, `party` is one of them, `pipe` what they say to each other. The parties are children
of the process that asks, reached by pipes; between themselves they use CrypTen's own connection over loopback, which
nothing protects. Nobody else can ask them, and nothing here serves a network.
"""

from hush.parties.crypten.pair import CrypTenPair

__all__ = ["CrypTenPair"]
