"""From long reasoning traces to training instances: ``read, segment, summarise, form, audit``.

Each step is a plain function on one record; a record that cannot be used becomes a ``Reject`` that says why.
"""
