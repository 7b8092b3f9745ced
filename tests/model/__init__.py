"""Every state of the binding machines up to a depth: is traffic sent where nobody proved to be?

A *world* is a few machines of :mod:`tunnel.mobility`, the messages between them, and what somebody
in the network may still do. From each world all actions are taken: bring, lose, repeat or overtake
a message, change where it seems to come from, let time go by, move. Worlds that differ only in
absolute time, sequence numbers and nonces are one. Three things hold in all of them:

- nobody is sent traffic to an endpoint where the peer never was;
- nobody is sent traffic to, or told that he is bound, who has not answered at his home address: a
  place of its own, reached by the home agent, with its own losses;
- if from now on nothing is lost, both ends find each other, however confused they were.

What is on its way has no order, since anything may overtake anything; without loss it arrives in
the order in which it was sent.

``python -m tests.model`` (``make model``) explores; the suite explores less deep.
"""
