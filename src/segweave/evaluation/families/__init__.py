"""Protocols beside `clean`, one file per family of data sets. A file declares `PROTOCOLS`; a new
protocol is a new file.
"""
