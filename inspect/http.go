package inspect

import "net/http"

func (s *Server) routes() *http.ServeMux { return http.NewServeMux() }
