"""`ibinn-console`: a web page on which a person asks a server, sees why, and says what is true.

    corruption, trade_off   what is computed here: damaged images, false alarms beside misses
    markup, plots           fragments of HTML and figures, functions of values
    answering, alarms, damage, truths   what each part of the page says, as text
    asking                  what the page asks the server
    page, cli               the layout (the only part that knows Gradio), the command

Importing this package imports neither Gradio nor torch.
"""
