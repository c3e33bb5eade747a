"""One machine's composition: what `umec up` makes, starts and stops.

settings      umec.toml and UMEC_… variables, parsed once
servercert    the server CA and the certificate of the listeners
credentials   keys of the services' own clients, and the operator's credential file
compose       all services in this process, on three listeners
children      `umec netd`, started beside it
"""
