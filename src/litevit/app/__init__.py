"""The web page: `litevit app` serves one static page (`page/`) and what it asks for.

    server      routes, and what goes wrong
    guard       who may ask: names, token, headers
    asked       what a request says
    pictures    what people have sent, apart from each other, bounded, forgotten after a while
    choices     models, runs and exported files that can be chosen; the last few stay open
    work        one thread for the models, a bounded queue before it
    predictions, looks, runs    what the three views show, as plain values and arrays
    packing     arrays and plain values in one answer

The browser gets arrays once and answers clicks from them.
"""
